"""Who is who from frame to frame: detections in, tracks out."""

from typing import Protocol

import numpy as np

from utils.cli.options import TRACKERS
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.tracks import Tracks

BYTETRACK, DEEPSORT = TRACKERS


class Tracker(Protocol):
    """Follows objects through one video. It is given every frame, in order, those without detections too."""

    lowest_score: float | np.ndarray  # of detections that matter to it, what the detector keeps; or (K,) by label

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:
        """The tracks that are seen in this frame.

        Ids count from 1 in the order in which tracks are first told; none comes twice in a frame, and each keeps
        its class.

        Args:
            frame: (H, W, 3) uint8 RGB.
            detections: what was found in it, of scores from `lowest_score` on, of the classes to follow.
        """
        ...


def create_tracker(
    name: str = BYTETRACK, *, threshold: float | np.ndarray, fps: float, buffer: float = 1.0, device: str = "cpu"
) -> Tracker:
    """A tracker for one video.

    Args:
        name: one of TRACKERS.
        threshold: the score that a new track needs, or (K,) scores by label.
        fps: frames a second of the video.
        buffer: seconds for which a track that is not seen may come back under its id.
        device: cpu, cuda or cuda:N, for DeepSORT's network.

    Raises:
        UserError: there is no such tracker, its package is missing, or the video has no rate.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"tracking needs to know the frames a second of the video, got {fps}: give --fps")
    if name == BYTETRACK:
        from utils.tracking.byte_track import ByteTracker

        return ByteTracker(threshold, fps, buffer)
    if name == DEEPSORT:
        from utils.tracking.deep_sort import DeepSortTracker

        return DeepSortTracker(threshold, fps, buffer, device)
    raise UserError(f"--tracker {name}: expected {' or '.join(TRACKERS)}")
