"""Interface of trackers, and creation by name: detections in, tracks out."""

from typing import Protocol

import numpy as np

from utils.cli.options import TRACKERS
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.tracks import Tracks

BYTETRACK, DEEPSORT = TRACKERS


class Tracker(Protocol):
    """Tracks objects through one video. Update it with every frame, in order, including those without detections."""

    lowest_score: float | np.ndarray  # lowest score of detections to pass; or (K,) by label

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:
        """Return the tracks detected in this frame.

        Ids count from 1 in the order in which tracks are first reported. They are unique within a frame, and each
        keeps its class.

        Args:
            frame: (H, W, 3) uint8 RGB.
            detections: detections in the frame of the classes to track, with scores of at least `lowest_score`.
        """
        ...


def create_tracker(
    name: str = BYTETRACK, *, threshold: float | np.ndarray, fps: float, buffer: float = 1.0, device: str = "cpu"
) -> Tracker:
    """Create a tracker for one video.

    Args:
        name: one of TRACKERS.
        threshold: score that starts a track, or (K,) scores by label.
        fps: frames per second of the video.
        buffer: seconds without a detection after which a track ends.
        device: cpu, cuda or cuda:N, for the appearance network of DeepSORT.

    Raises:
        UserError: the name is unknown, its package is missing, or fps is invalid.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"tracking needs the frame rate of the video, got {fps}: give --fps")
    if name == BYTETRACK:
        from utils.tracking.byte_track import ByteTracker

        return ByteTracker(threshold, fps, buffer)
    if name == DEEPSORT:
        from utils.tracking.deep_sort import DeepSortTracker

        return DeepSortTracker(threshold, fps, buffer, device)
    raise UserError(f"--tracker {name}: expected {' or '.join(TRACKERS)}")
