"""ByteTrack, from the package trackers: matches by motion and IoU; low-scoring detections extend existing tracks.

Zhang et al. 2021, https://arxiv.org/abs/2110.06864
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.detect.detections import Detections
from utils.errors import requires_package
from utils.tracking.per_class import PerClassTrackers, cross_class_duplicates
from utils.tracking.tracks import Tracks

if TYPE_CHECKING:
    from trackers import ByteTrackTracker

LOWEST_SCORE = 0.1  # of detections that may extend a track, as in the paper
_BUFFER_RATE = 30  # frames per second; the package scales its buffer from this rate to the video's


class ByteTracker:
    """ByteTrack, one per class; see Tracker.

    Args:
        threshold: score that starts a track, or (K,) scores by label. Detections between LOWEST_SCORE and it only
            extend tracks.
        fps: frames per second of the video.
        buffer: seconds without a detection after which a track ends.

    Raises:
        MissingPackageError: the package trackers is not installed.
    """

    def __init__(self, threshold: float | np.ndarray, fps: float, buffer: float) -> None:
        with requires_package("trackers", "--tracker bytetrack"):
            from trackers import ByteTrackTracker
        with requires_package("supervision", "--tracker bytetrack"):
            from supervision import Detections as SupervisionDetections

        def create(label: int) -> ByteTrackTracker:
            high = float(threshold[label] if isinstance(threshold, np.ndarray) else threshold)
            return ByteTrackTracker(
                lost_track_buffer=round(buffer * _BUFFER_RATE),
                frame_rate=fps,
                track_activation_threshold=high,
                high_conf_det_threshold=high,
            )

        self._detections_class = SupervisionDetections
        self.lowest_score = np.minimum(threshold, LOWEST_SCORE)
        self._trackers = PerClassTrackers(create)

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:  # noqa: ARG002 - motion needs no pixels
        """See Tracker. A track is reported from its second frame on."""
        boxes = detections.boxes
        usable = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        usable &= detections.at_least(self.lowest_score)
        scores = np.where(cross_class_duplicates(detections, usable), 0, detections.scores)  # 0: starts no track

        def step(tracker: "ByteTrackTracker", indices: Sequence[int]) -> Iterator[tuple[int, int]]:
            at = np.array(indices, np.int64)
            # class_id carries the index of the detection
            tracked = tracker.update(
                self._detections_class(boxes[at].astype(np.float64), confidence=scores[at], class_id=at)
            )
            if len(tracked):
                pairs = zip(tracked.tracker_id.tolist(), tracked.class_id.tolist(), strict=True)
                yield from ((track_id, index) for track_id, index in pairs if track_id >= 0)

        return self._trackers.update(detections, usable, step)
