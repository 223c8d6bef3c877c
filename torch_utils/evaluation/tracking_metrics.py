"""Tracking metrics HOTA, IDF1 and MOTA, as defined and computed by TrackEval.

HOTA: Luiten et al. 2020, https://arxiv.org/abs/2009.07736; IDF1: Ristani et al. 2016, https://arxiv.org/abs/1609.01775;
MOTA: Bernardin and Stiefelhagen 2008, https://doi.org/10.1155/2008/246309
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import requires_package
from utils.tracking.tracks import Tracks, pairwise_iou

_ALPHAS = np.arange(0.05, 0.99, 0.05)  # IoU thresholds of a match; HOTA is their mean
_MATCH_IOU = 0.5  # of MOTA and IDF1
_EPSILON = np.finfo(float).eps
_CONTINUITY = 1000  # added in MOTA to the IoU of a match that the previous frame had; outweighs any IoU


@dataclass(frozen=True)
class TrackingScores:
    """Scores as fractions, and counts; MOTA may be negative."""

    hota: float
    detection: float  # DetA
    association: float  # AssA
    idf1: float
    mota: float
    id_switches: int  # changes of the id of a tracked object
    misses: int  # labeled boxes without a track
    false_alarms: int  # tracked boxes without a label


@dataclass(frozen=True)
class _Frame:
    objects: np.ndarray  # (N,) index of each labeled object
    tracks: np.ndarray  # (M,) index of each track
    iou: np.ndarray  # (N, M), 0 between different classes


def score_tracks(truth: Sequence[Sequence[Tracks]], tracks: Sequence[Sequence[Tracks]]) -> TrackingScores:
    """Score tracks over videos, each a sequence of frames; a track matches only objects of its class.

    Ids are local to their video: equal ids in different videos are different objects.

    Args:
        truth: labeled objects.
        tracks: output of the tracker, as many videos and frames as `truth`.

    Raises:
        MissingPackageError: scipy is not installed.
        ValueError: the numbers of videos, or of frames in a video, differ.
    """
    object_index: dict[tuple[int, int, int], int] = {}
    track_index: dict[tuple[int, int, int], int] = {}
    frames = []
    for video, (true_frames, track_frames) in enumerate(zip(truth, tracks, strict=True)):
        for labeled, tracked in zip(true_frames, track_frames, strict=True):
            same_class = labeled.labels[:, None] == tracked.labels[None]
            iou = np.where(same_class, pairwise_iou(labeled.boxes, tracked.boxes), 0.0)
            frames.append(_Frame(_indices(video, labeled, object_index), _indices(video, tracked, track_index), iou))
    num_objects, num_tracks = len(object_index), len(track_index)
    detection, association = _hota(frames, num_objects, num_tracks)
    misses, false_alarms, switches = _clear_mot(frames, num_objects)
    true_boxes, tracked_boxes = sum(len(frame.objects) for frame in frames), sum(len(frame.tracks) for frame in frames)
    return TrackingScores(
        hota=float(np.sqrt(detection * association).mean()),
        detection=float(detection.mean()),
        association=float(association.mean()),
        idf1=_identity_matches(frames, num_objects, num_tracks) / max(1.0, 0.5 * (true_boxes + tracked_boxes)),
        mota=1 - (misses + false_alarms + switches) / max(1, true_boxes),
        id_switches=switches,
        misses=misses,
        false_alarms=false_alarms,
    )


def _assign(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows and columns of the one-to-one assignment of least total cost."""
    with requires_package("scipy", "score_tracks"):
        from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(costs)


def _indices(video: int, tracks: Tracks, known: dict[tuple[int, int, int], int]) -> np.ndarray:
    """(N,) index of each track's video, class and id in `known`; new ones are added to it."""
    keys = zip([video] * len(tracks), tracks.labels.tolist(), tracks.ids.tolist(), strict=True)
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def _lengths(frames: Sequence[_Frame], num_objects: int, num_tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of frames of each object (num_objects, 1) and of each track (1, num_tracks)."""
    object_length, track_length = np.zeros((num_objects, 1)), np.zeros((1, num_tracks))
    for frame in frames:
        object_length[frame.objects] += 1
        track_length[0, frame.tracks] += 1
    return object_length, track_length


def _hota(frames: Sequence[_Frame], num_objects: int, num_tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """(A,) DetA and AssA at each of _ALPHAS. Matching maximizes IoU times the alignment of the whole tracks."""
    overlap = np.zeros((num_objects, num_tracks))
    for frame in frames:
        union = frame.iou.sum(0)[None] + frame.iou.sum(1)[:, None] - frame.iou
        share = np.divide(frame.iou, union, out=np.zeros_like(frame.iou), where=union > _EPSILON)
        overlap[frame.objects[:, None], frame.tracks[None]] += share
    object_length, track_length = _lengths(frames, num_objects, num_tracks)
    alignment = overlap / (object_length + track_length - overlap)

    matches = np.zeros((len(_ALPHAS), num_objects, num_tracks))
    boxes = 0
    for frame in frames:
        boxes += len(frame.objects) + len(frame.tracks)
        rows, columns = _assign(-alignment[frame.objects[:, None], frame.tracks[None]] * frame.iou)
        matched = frame.iou[rows, columns] >= _ALPHAS[:, None] - _EPSILON
        matches[:, frame.objects[rows], frame.tracks[columns]] += matched
    hits = matches.sum((1, 2))
    shared = matches / np.maximum(1, object_length + track_length - matches)
    return hits / np.maximum(1, boxes - hits), (matches * shared).sum((1, 2)) / np.maximum(1, hits)


def _identity_matches(frames: Sequence[_Frame], num_objects: int, num_tracks: int) -> float:
    """IDTP: number of boxes that agree under the best one-to-one assignment of tracks to objects."""
    agreement = np.zeros((num_objects, num_tracks))
    for frame in frames:
        agreement[frame.objects[:, None], frame.tracks[None]] += frame.iou >= _MATCH_IOU
    return float(agreement[_assign(-agreement)].sum())


def _clear_mot(frames: Sequence[_Frame], num_objects: int) -> tuple[int, int, int]:
    """Misses, false alarms and id switches. Matching prefers the pairs of the previous frame, then maximizes IoU."""
    last = np.full(num_objects, -1)  # the track that each object was last matched to
    previous = np.full(num_objects, -1)  # the same, in the latest frame that has both objects and tracks
    misses = false_alarms = switches = 0
    for frame in frames:
        rows = columns = np.empty(0, np.int64)
        if len(frame.objects) and len(frame.tracks):
            weights = _CONTINUITY * (previous[frame.objects][:, None] == frame.tracks[None]) + frame.iou
            weights[frame.iou < _MATCH_IOU - _EPSILON] = 0
            rows, columns = _assign(-weights)
            matched = weights[rows, columns] > _EPSILON
            rows, columns = rows[matched], columns[matched]
            objects, tracks = frame.objects[rows], frame.tracks[columns]
            switches += int(((last[objects] >= 0) & (last[objects] != tracks)).sum())
            previous[:] = -1
            previous[objects] = last[objects] = tracks
        misses += len(frame.objects) - len(rows)
        false_alarms += len(frame.tracks) - len(rows)
    return misses, false_alarms, switches
