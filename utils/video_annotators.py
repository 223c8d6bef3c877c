"""What becomes of a frame and what was found in it: its picture, and its line in the log."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from utils.coco_log import CocoLog
from utils.detections import Detections
from utils.drawing import draw_detections
from utils.video import Frame


class Follower(Protocol):
    """Follows objects from frame to frame, and draws what it knows of them."""

    def update(self, frame: np.ndarray, detections: Detections) -> Any:
        """What is known after this frame, (H, W, 3) uint8 RGB; every frame comes, in order, also without detections.

        The result has boxes (N, 4), ids (N,), labels (N,) and scores (N,), see utils/tracks.py.
        """

    def draw(self, frame: np.ndarray, result: Any) -> np.ndarray:
        """A new picture of the frame with it."""


class DetectionAnnotator:
    """Draws what was detected; see Annotator of utils/video_pipeline.py."""

    def __init__(self, class_names: Sequence[str], *, show_labels: bool = True, log: CocoLog | None = None) -> None:
        self._class_names, self._show_labels, self._log = class_names, show_labels, log

    def annotate(self, frame: Frame, detections: Detections) -> np.ndarray:
        """See Annotator."""
        if self._log is not None:
            log_frame(self._log, frame, detections)
        return draw_detections(frame.image, detections, self._class_names, show_labels=self._show_labels)

    def close(self) -> None:
        """See Annotator."""
        if self._log is not None:
            self._log.close()


class FollowingAnnotator:
    """Draws what a follower makes of the detections; the log has its boxes, with a track_id each."""

    def __init__(self, follower: Follower, *, log: CocoLog | None = None) -> None:
        self._follower, self._log = follower, log

    def annotate(self, frame: Frame, detections: Detections) -> np.ndarray:
        """See Annotator."""
        result = self._follower.update(frame.image, detections)
        if self._log is not None:
            log_frame(self._log, frame, Detections(result.boxes, result.scores, result.labels), result.ids)
        return self._follower.draw(frame.image, result)

    def close(self) -> None:
        """See Annotator."""
        if self._log is not None:
            self._log.close()


def log_frame(log: CocoLog, frame: Frame, found: Detections, ids: np.ndarray | None = None) -> None:
    """One image of the log: frame_000001 is the first, `frame` counts from 0, `time` is in s."""
    height, width = frame.image.shape[:2]
    name = f"frame_{frame.number + 1:06d}"
    log.add(name, height, width, found, ids=ids, frame=frame.number, time=round(frame.seconds, 6))
