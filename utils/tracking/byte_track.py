"""ByteTrack, from the package trackers: tracks by motion and overlap; low scores keep alive what high ones began.

Zhang et al. 2021, https://arxiv.org/abs/2110.06864
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.per_class import OnePerClass, second_guesses
from utils.tracking.tracks import Tracks

if TYPE_CHECKING:
    from trackers import ByteTrackTracker

LOWEST_SCORE = 0.1  # of a detection that may keep a track alive; the paper's
_BUFFER_RATE = 30  # frames a second in which the package counts its buffer, whatever the video's rate


class ByteTracker:
    """A tracker of utils/tracking/tracker.py.

    Args:
        threshold: the score that a new track needs, or (K,) scores by label; detections from LOWEST_SCORE up to it
            only go on with a track.
        fps: frames a second of the video.
        buffer: seconds for which a track that is not seen may come back.

    Raises:
        UserError: the package trackers is not installed.
    """

    def __init__(self, threshold: float | np.ndarray, fps: float, buffer: float) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError:
            raise UserError("--tracker bytetrack needs the package trackers: pip install trackers") from None

        def create(label: int) -> ByteTrackTracker:
            high = float(threshold[label] if isinstance(threshold, np.ndarray) else threshold)
            return ByteTrackTracker(
                lost_track_buffer=round(buffer * _BUFFER_RATE),
                frame_rate=fps,
                track_activation_threshold=high,
                high_conf_det_threshold=high,
            )

        self.lowest_score = np.minimum(threshold, LOWEST_SCORE)
        self._trackers = OnePerClass(create)

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:  # noqa: ARG002 - motion needs no pixels
        """See Tracker; a track is told from its second frame on."""
        from supervision import Detections as TheirDetections

        boxes = detections.boxes
        usable = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        usable &= detections.at_least(self.lowest_score)
        scores = np.where(second_guesses(detections, usable), 0, detections.scores)  # with which they start no track

        def step(tracker: "ByteTrackTracker", own: Sequence[int]) -> Iterator[tuple[int, int]]:
            at = np.array(own, np.int64)
            given = TheirDetections(boxes[at].astype(np.float64), confidence=scores[at], class_id=at)
            found = tracker.update(given)
            if len(found):  # class_id: the detection's index
                pairs = zip(found.tracker_id.tolist(), found.class_id.tolist(), strict=True)
                yield from ((number, index) for number, index in pairs if number >= 0)

        return self._trackers.update(detections, usable, step)
