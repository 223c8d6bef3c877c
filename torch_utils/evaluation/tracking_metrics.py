"""How good tracks are: HOTA, IDF1 and MOTA, by the definitions of TrackEval, whose numbers these are.

HOTA: Luiten et al. 2020, https://arxiv.org/abs/2009.07736; IDF1: Ristani et al. 2016, https://arxiv.org/abs/1609.01775;
MOTA: Bernardin and Stiefelhagen 2008, https://doi.org/10.1155/2008/246309
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.tracking.tracks import Tracks, pairwise_iou

_ALPHAS = np.arange(0.05, 0.99, 0.05)  # least IoU of a match, over which HOTA is averaged
_MATCH_IOU = 0.5  # of MOTA and IDF1
_EPSILON = np.finfo(float).eps
_KEEP = 1000  # what it is worth to a match of MOTA that the frame before had it: more than any IoU


@dataclass(frozen=True)
class TrackingScores:
    """Fractions of 1, but for the counts; MOTA may be below 0."""

    hota: float
    detection: float  # DetA: how well objects are found
    association: float  # AssA: how well their boxes are linked
    idf1: float
    mota: float
    id_switches: int  # an object goes on under another id
    misses: int  # labeled boxes without a track
    false_alarms: int  # tracked boxes without a label


@dataclass(frozen=True)
class _Frame:
    true: np.ndarray  # (N,) index of the object
    found: np.ndarray  # (M,) index of the track
    iou: np.ndarray  # (N, M), 0 between classes


def score_tracks(truth: Sequence[Sequence[Tracks]], found: Sequence[Sequence[Tracks]]) -> TrackingScores:
    """Scores over videos, each a sequence of frames; a track matches an object of its own class only.

    Objects and tracks of different videos are different, whatever their ids are.

    Raises:
        ValueError: the two have not as many videos, or a video not as many frames.
    """
    true_index: dict[tuple[int, int, int], int] = {}
    found_index: dict[tuple[int, int, int], int] = {}
    frames = []
    for video, (true_frames, found_frames) in enumerate(zip(truth, found, strict=True)):
        for one, other in zip(true_frames, found_frames, strict=True):
            iou = np.where(one.labels[:, None] == other.labels[None], pairwise_iou(one.boxes, other.boxes), 0.0)
            frames.append(_Frame(_indices(video, one, true_index), _indices(video, other, found_index), iou))
    objects, tracks = len(true_index), len(found_index)
    detection, association = _hota(frames, objects, tracks)
    misses, false_alarms, switches = _clear(frames, objects)
    true_boxes, found_boxes = sum(len(frame.true) for frame in frames), sum(len(frame.found) for frame in frames)
    return TrackingScores(
        hota=float(np.sqrt(detection * association).mean()),
        detection=float(detection.mean()),
        association=float(association.mean()),
        idf1=_identity(frames, objects, tracks) / max(1.0, 0.5 * (true_boxes + found_boxes)),
        mota=1 - (misses + false_alarms + switches) / max(1, true_boxes),
        id_switches=switches,
        misses=misses,
        false_alarms=false_alarms,
    )


def _indices(video: int, tracks: Tracks, known: dict[tuple[int, int, int], int]) -> np.ndarray:
    """Each object's place in `known`, which grows by the new ones."""
    keys = zip([video] * len(tracks), tracks.labels.tolist(), tracks.ids.tolist(), strict=True)
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def _lengths(frames: Sequence[_Frame], objects: int, tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of each object (objects, 1) and of each track (1, tracks)."""
    true, found = np.zeros((objects, 1)), np.zeros((1, tracks))
    for frame in frames:
        true[frame.true] += 1
        found[0, frame.found] += 1
    return true, found


def _hota(frames: Sequence[_Frame], objects: int, tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """DetA and AssA at each of _ALPHAS. Matches maximize how well the whole tracks overlap, not the boxes alone."""
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((objects, tracks))
    for frame in frames:
        either = frame.iou.sum(0)[None] + frame.iou.sum(1)[:, None] - frame.iou
        share = np.divide(frame.iou, either, out=np.zeros_like(frame.iou), where=either > _EPSILON)
        together[frame.true[:, None], frame.found[None]] += share
    true_length, found_length = _lengths(frames, objects, tracks)
    alignment = together / (true_length + found_length - together)

    matches = np.zeros((len(_ALPHAS), objects, tracks))
    boxes = 0
    for frame in frames:
        boxes += len(frame.true) + len(frame.found)
        rows, columns = linear_sum_assignment(-alignment[frame.true[:, None], frame.found[None]] * frame.iou)
        matched = frame.iou[rows, columns] >= _ALPHAS[:, None] - _EPSILON
        matches[:, frame.true[rows], frame.found[columns]] += matched
    hits = matches.sum((1, 2))
    shared = matches / np.maximum(1, true_length + found_length - matches)
    return hits / np.maximum(1, boxes - hits), (matches * shared).sum((1, 2)) / np.maximum(1, hits)


def _identity(frames: Sequence[_Frame], objects: int, tracks: int) -> float:
    """Boxes that agree under the best one-to-one naming of objects by tracks."""
    from scipy.optimize import linear_sum_assignment

    agree = np.zeros((objects, tracks))
    for frame in frames:
        agree[frame.true[:, None], frame.found[None]] += frame.iou >= _MATCH_IOU
    return float(agree[linear_sum_assignment(-agree)].sum())


def _clear(frames: Sequence[_Frame], objects: int) -> tuple[int, int, int]:
    """Misses, false alarms and id switches. A frame first keeps the matches of the frame before, then maximizes IoU."""
    from scipy.optimize import linear_sum_assignment

    last = np.full(objects, -1)  # track that an object was last matched to
    before = np.full(objects, -1)  # the same, in the latest frame with both objects and tracks
    misses = false_alarms = switches = 0
    for frame in frames:
        rows = columns = np.empty(0, np.int64)
        if len(frame.true) and len(frame.found):
            worth = _KEEP * (before[frame.true][:, None] == frame.found[None]) + frame.iou
            worth[frame.iou < _MATCH_IOU - _EPSILON] = 0
            rows, columns = linear_sum_assignment(-worth)
            matched = worth[rows, columns] > _EPSILON
            rows, columns = rows[matched], columns[matched]
            true, found = frame.true[rows], frame.found[columns]
            switches += int(((last[true] >= 0) & (last[true] != found)).sum())
            before[:] = -1
            before[true] = last[true] = found
        misses += len(frame.true) - len(rows)
        false_alarms += len(frame.found) - len(rows)
    return misses, false_alarms, switches
