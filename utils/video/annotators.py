"""Output per video frame: the annotated picture and the log entry."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from utils.detect.detections import Detections
from utils.inference.coco_log import CocoLog
from utils.video.types import Frame
from utils.visualize.drawing import draw_detections


class Annotator(Protocol):
    """Draws the picture of each frame. Called on every frame, in order, by one thread."""

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """Draw on a copy of the frame, (H, W, 3) uint8 RGB; `number` counts from 0."""

    def close(self) -> None:
        """Finish after the last frame, also when the video ended early."""


class DetectionAnnotator:
    """Draws detections; see Annotator."""

    def __init__(self, class_names: Sequence[str], *, show_labels: bool = True) -> None:
        self._class_names, self._show_labels = class_names, show_labels

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """See Annotator."""
        del number
        return draw_detections(frame, detections, self._class_names, show_labels=self._show_labels)

    def close(self) -> None:
        """See Annotator."""


class FrameLog:
    """Log of a video's detections as COCO JSON. The first image is frame_000001, with `frame` 0; `time` is in s.

    Args:
        keep: selects the detections to log.
    """

    def __init__(self, log: CocoLog, keep: Callable[[Detections], Detections]) -> None:
        self._log, self._keep = log, keep

    def add(self, frame: Frame, detections: Detections) -> None:
        """Append one frame."""
        name, (height, width) = f"frame_{frame.number + 1:06d}", frame.image.shape[:2]
        logged = self._keep(detections)
        self._log.add(name, height, width, logged, frame=frame.number, time=round(frame.seconds, 6))

    def close(self) -> None:
        """Write the file."""
        self._log.close()
