"""What becomes of a frame and what was found in it: its picture, and its line in the log."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from utils.detect.detections import Detections
from utils.inference.coco_log import CocoLog
from utils.video.types import Frame
from utils.visualize.drawing import draw_detections


class Annotator(Protocol):
    """Makes the picture of each frame; called for every frame, in order, by one thread."""

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """A new picture of the frame, both (H, W, 3) uint8 RGB; `number` counts from 0."""

    def close(self) -> None:
        """After the last frame, also when something ended the video before its end."""


class DetectionAnnotator:
    """Draws what was detected; see Annotator."""

    def __init__(self, class_names: Sequence[str], *, show_labels: bool = True) -> None:
        self._class_names, self._show_labels = class_names, show_labels

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """See Annotator."""
        del number
        return draw_detections(frame, detections, self._class_names, show_labels=self._show_labels)

    def close(self) -> None:
        """See Annotator."""


class FrameLog:
    """The detections of a video as COCO json: image frame_000001 is the first; `frame` counts from 0, `time` is in s.

    Args:
        keep: leaves the detections to log.
    """

    def __init__(self, log: CocoLog, keep: Callable[[Detections], Detections]) -> None:
        self._log, self._keep = log, keep

    def add(self, frame: Frame, detections: Detections) -> None:
        """Append one frame."""
        name, (height, width) = f"frame_{frame.number + 1:06d}", frame.image.shape[:2]
        found = self._keep(detections)
        self._log.add(name, height, width, found, frame=frame.number, time=round(frame.seconds, 6))

    def close(self) -> None:
        """Write the file."""
        self._log.close()
