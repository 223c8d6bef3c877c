"""Detections against ground truth, a whole split at once: which overlap, and which detection gets which box."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

_BLOCK = 1 << 20  # pairs of boxes whose overlap is computed at a time


@dataclass(frozen=True)
class FlatDetections:
    """The N detections of a split: images ascending, the best of an image first."""

    images: np.ndarray  # (N,) int64, number in the index
    labels: np.ndarray  # (N,) int64, 1 .. number of classes
    scores: np.ndarray  # (N,) float32
    boxes: np.ndarray  # (N, 4) float64, x, y, width, height in original pixels


@dataclass(frozen=True)
class FlatGroundTruth:
    """The M boxes of the ground truth, in the order of the index."""

    images: np.ndarray  # (M,) int64
    labels: np.ndarray  # (M,) int64
    ignored: np.ndarray  # (M,) bool: neither missed, nor is what is found there false
    boxes: np.ndarray  # (M, 4) float64, x, y, width, height


@dataclass(frozen=True)
class Pairs:
    """Detections and boxes of the ground truth that overlap; sorted by detection, then by box."""

    found: np.ndarray  # (P,) int64, row of FlatDetections
    truth: np.ndarray  # (P,) int64, row of FlatGroundTruth
    ious: np.ndarray  # (P,) float64; with an ignored box: the covered part of the detection, as COCO has it

    def where(self, keep: np.ndarray) -> "Pairs":
        """Those that the mask names."""
        return Pairs(self.found[keep], self.truth[keep], self.ious[keep])


def flatten(index: LabelIndex, detections: Mapping[int, Detections]) -> tuple[FlatDetections, FlatGroundTruth]:
    """Both sides of the images in `detections`; what was found of labels that no class has is left out."""
    images = sorted(detections)
    parts = [detections[i] for i in images]
    owners = np.repeat(np.array(images, np.int64), [len(part) for part in parts])
    labels = _joined([part.labels for part in parts], np.int64)
    scores = _joined([part.scores for part in parts], np.float32)
    corners = _joined([part.boxes for part in parts], np.float64).reshape(-1, 4)
    order = np.lexsort((-scores, owners))
    order = order[(labels[order] > 0) & (labels[order] < len(index.classes))]
    found = FlatDetections(owners[order], labels[order], scores[order], _with_sides(corners[order]))
    counts = np.isin(index.image_of_box(), images)
    truth = FlatGroundTruth(
        index.image_of_box()[counts],
        index.labels[counts].astype(np.int64),
        index.ignored[counts],
        _with_sides(index.boxes[counts].astype(np.float64)),
    )
    return found, truth


def overlaps(
    found: FlatDetections, truth: FlatGroundTruth, found_groups: np.ndarray, truth_groups: np.ndarray, *, least: float
) -> Pairs:
    """All pairs of one group whose overlap is at least `least`.

    Args:
        found_groups: (N,) int64, what a detection and a box of the ground truth must have in common.
        truth_groups: (M,) the same of the ground truth.
        least: above 0.
    """
    order = np.argsort(truth_groups, kind="stable")
    first, last = (np.searchsorted(truth_groups[order], found_groups, side) for side in ("left", "right"))
    counts = last - first
    ends = np.cumsum(counts)
    blocks = []
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BLOCK, "right")))
        here = np.repeat(np.arange(start, stop), counts[start:stop])
        number = np.arange(len(here)) - (ends - counts)[here] + done  # of the pair, among those of its detection
        there = order[first[here] + number]
        ious = _ious(found.boxes[here], truth.boxes[there], truth.ignored[there])
        near = ious >= least
        blocks.append((here[near], there[near], ious[near]))
        start = stop
    columns = zip(*blocks, strict=True) if blocks else ([], [], [])
    return Pairs(*(_joined(list(c), kind) for c, kind in zip(columns, (np.int64, np.int64, np.float64), strict=True)))


def greedy(
    pairs: Pairs, found_groups: np.ndarray, thresholds: np.ndarray, aside: np.ndarray, shared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's matching, under C conditions at once.

    One after another, the best first, each detection of a group takes the free box that it overlaps most, the later of
    two alike; one that is set aside only if there is no other.

    Args:
        pairs: those of a detection and a box that may get together.
        found_groups: (N,) int64; within a group, detections choose in their order, groups do not meet.
        thresholds: (C,) least overlap.
        aside: (M, C) bool, boxes of the ground truth that are set aside.
        shared: (M,) bool, boxes that several detections may take.

    Returns:
        found: (Q,) int64, the detections that are in `pairs`, ascending.
        taken: (Q, C) int64, the box that each of them took, -1 for none.
    """
    found, of_pair = np.unique(pairs.found, return_inverse=True)
    turn = ranks(found_groups[found])
    by_turn = np.argsort(turn[of_pair], kind="stable")
    preference = np.lexsort((pairs.truth, pairs.ious))  # least overlap first
    key = np.empty(len(preference), np.int64)
    key[preference] = np.arange(len(preference))
    taken = np.full((len(found), len(thresholds)), -1, np.int64)
    gone = np.zeros(aside.shape, bool)
    limits = np.minimum(thresholds, 1 - 1e-10)  # as pycocotools has it
    for rows in np.split(by_turn, np.cumsum(np.bincount(turn[of_pair]))[:-1]) if len(found) else ():
        truth = pairs.truth[rows]
        free = (pairs.ious[rows, None] >= limits) & (~gone[truth] | shared[truth, None])
        wish = np.where(free, key[rows, None] + np.where(aside[truth], 0, len(key)), -1)
        own = of_pair[rows]
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        best = np.maximum.reduceat(wish, starts, axis=0)
        chosen = np.where(best >= 0, pairs.truth[preference[best % len(key)]], -1)
        taken[own[starts]] = chosen
        detection, condition = np.nonzero(chosen >= 0)
        gone[chosen[detection, condition], condition] = True
    return found, taken


def ranks(groups: np.ndarray) -> np.ndarray:
    """(N,) int64: 0, 1, 2 ... within each group, in the order given."""
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] - 1))
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(first, np.diff(first, append=len(groups)))
    return rank


def _ious(found: np.ndarray, truth: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """In the order of pycocotools' maskApi.c, for the same last digit."""
    low = np.maximum(found[:, :2], truth[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:])
    sides = np.maximum(high - low, 0)
    common = sides[:, 0] * sides[:, 1]
    area = found[:, 2] * found[:, 3]
    whole = np.where(ignored, area, area + truth[:, 2] * truth[:, 3] - common)
    return np.divide(common, whole, out=np.zeros(len(common)), where=whole > 0)


def _with_sides(corners: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 -> x y width height."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, kind)
