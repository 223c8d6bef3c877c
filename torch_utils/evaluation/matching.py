"""Overlap and greedy matching of detections and ground-truth boxes, for a whole split at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

_BLOCK = 1 << 20  # pairs of boxes whose IoU is computed at a time, to bound memory


@dataclass(frozen=True)
class FlatDetections:
    """The N detections of a split: images ascending, within an image scores descending."""

    images: np.ndarray  # (N,) int64, number in the index
    labels: np.ndarray  # (N,) int64, 1 .. number of classes
    scores: np.ndarray  # (N,) float32
    boxes: np.ndarray  # (N, 4) float64, x, y, width, height in original pixels


@dataclass(frozen=True)
class FlatGroundTruth:
    """The M ground-truth boxes of a split, in the order of the index."""

    images: np.ndarray  # (M,) int64
    labels: np.ndarray  # (M,) int64
    ignored: np.ndarray  # (M,) bool: not counted as missed, and detections of it not as false positives
    boxes: np.ndarray  # (M, 4) float64, x, y, width, height


@dataclass(frozen=True)
class Pairs:
    """The P overlapping pairs of a detection and a ground-truth box, sorted by detection, then by box."""

    detections: np.ndarray  # (P,) int64, row of FlatDetections
    truth: np.ndarray  # (P,) int64, row of FlatGroundTruth
    ious: np.ndarray  # (P,) float64; with an ignored box: the covered fraction of the detection, as in COCO

    def where(self, keep: np.ndarray) -> "Pairs":
        """The pairs selected by a (P,) bool mask."""
        return Pairs(self.detections[keep], self.truth[keep], self.ious[keep])


def flatten(index: LabelIndex, detections: Mapping[int, Detections]) -> tuple[FlatDetections, FlatGroundTruth]:
    """Concatenate detections and ground truth of the images in `detections`.

    Detections with a label that is not in the index's classes are left out.
    """
    images = sorted(detections)
    parts = [detections[i] for i in images]
    image_of_detection = np.repeat(np.array(images, np.int64), [len(part) for part in parts])
    labels = _concatenate([part.labels for part in parts], np.int64)
    scores = _concatenate([part.scores for part in parts], np.float32)
    corners = _concatenate([part.boxes for part in parts], np.float64).reshape(-1, 4)
    order = np.lexsort((-scores, image_of_detection))
    order = order[(labels[order] > 0) & (labels[order] < len(index.classes))]
    evaluated = np.isin(index.image_of_box(), images)
    truth = FlatGroundTruth(
        index.image_of_box()[evaluated],
        index.labels[evaluated].astype(np.int64),
        index.ignored[evaluated],
        _xyxy_to_xywh(index.boxes[evaluated].astype(np.float64)),
    )
    flat = FlatDetections(image_of_detection[order], labels[order], scores[order], _xyxy_to_xywh(corners[order]))
    return flat, truth


def overlaps(
    detections: FlatDetections,
    truth: FlatGroundTruth,
    groups: np.ndarray,
    truth_groups: np.ndarray,
    *,
    min_iou: float,
) -> Pairs:
    """Find all pairs within a group whose IoU is at least `min_iou`.

    Args:
        groups: (N,) int64 key of each detection, such as image and class; only equal keys are paired.
        truth_groups: (M,) int64 key of each ground-truth box.
        min_iou: above 0.
    """
    order = np.argsort(truth_groups, kind="stable")
    first, last = (np.searchsorted(truth_groups[order], groups, side) for side in ("left", "right"))
    counts = last - first
    ends = np.cumsum(counts)
    blocks = []
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BLOCK, "right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        nth_pair = np.arange(len(rows)) - (ends - counts)[rows] + done  # counted per detection
        truth_rows = order[first[rows] + nth_pair]
        ious = _ious(detections.boxes[rows], truth.boxes[truth_rows], truth.ignored[truth_rows])
        near = ious >= min_iou
        blocks.append((rows[near], truth_rows[near], ious[near]))
        start = stop
    columns = zip(*blocks, strict=True) if blocks else ([], [], [])
    dtypes = (np.int64, np.int64, np.float64)
    return Pairs(*(_concatenate(list(c), dtype) for c, dtype in zip(columns, dtypes, strict=True)))


def greedy_match(
    pairs: Pairs, groups: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, reusable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to boxes greedily, as COCO does, under C conditions at once.

    In each group, detections choose one after another, the highest score first. Each takes the free box with the
    highest IoU, of a tie the later one. An ignored box is taken only if no other box is free.

    Args:
        pairs: the detections and boxes that may be matched.
        groups: (N,) int64; detections of different groups do not compete for boxes.
        thresholds: (C,) minimum IoU.
        ignored: (M, C) bool, ground-truth boxes that are ignored under each condition.
        reusable: (M,) bool, boxes that several detections may take.

    Returns:
        matched: (Q,) int64, rows of the detections in `pairs`, ascending.
        matches: (Q, C) int64, row of the box that each of them took, -1 for none.
    """
    matched, slots = np.unique(pairs.detections, return_inverse=True)  # slots: (P,) index into `matched`
    turn = ranks(groups[matched])
    by_turn = np.argsort(turn[slots], kind="stable")
    preference = np.lexsort((pairs.truth, pairs.ious))  # lowest IoU first
    priority = np.empty(len(preference), np.int64)
    priority[preference] = np.arange(len(preference))
    matches = np.full((len(matched), len(thresholds)), -1, np.int64)
    taken = np.zeros(ignored.shape, bool)
    limits = np.minimum(thresholds, 1 - 1e-10)  # as in pycocotools
    for rows in np.split(by_turn, np.cumsum(np.bincount(turn[slots]))[:-1]) if len(matched) else ():
        truth = pairs.truth[rows]
        free = (pairs.ious[rows, None] >= limits) & (~taken[truth] | reusable[truth, None])
        choice = np.where(free, priority[rows, None] + np.where(ignored[truth], 0, len(priority)), -1)
        starts = np.flatnonzero(np.diff(slots[rows], prepend=-1))
        best = np.maximum.reduceat(choice, starts, axis=0)
        chosen = np.where(best >= 0, pairs.truth[preference[best % len(priority)]], -1)
        matches[slots[rows][starts]] = chosen
        detection, condition = np.nonzero(chosen >= 0)
        taken[chosen[detection, condition], condition] = True
    return matched, matches


def ranks(groups: np.ndarray) -> np.ndarray:
    """(N,) int64: 0, 1, 2 ... within each group, in the order given."""
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] - 1))
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(first, np.diff(first, append=len(groups)))
    return rank


def _ious(boxes: np.ndarray, truth: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """(n,) IoU of xywh boxes, in pycocotools' order of operations (maskApi.c) for bit-equal results."""
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    sides = np.maximum(high - low, 0)
    intersection = sides[:, 0] * sides[:, 1]
    area = boxes[:, 2] * boxes[:, 3]
    union = np.where(ignored, area, area + truth[:, 2] * truth[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros(len(intersection)), where=union > 0)


def _xyxy_to_xywh(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def _concatenate(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype)
