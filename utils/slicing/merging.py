"""Merging of the boxes of overlapping windows into one box per object, by SAHI's rules (https://github.com/obss/sahi).

The results are bit-equal to those of sahi 0.12, including tie-breaking among equal scores and rounding to float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.detect.detections import Detections

_BLOCK = 1 << 20  # pairs of boxes compared at once: bounds the memory


@dataclass(frozen=True)
class Merging:
    """Rule that decides which boxes are one object, and how they are merged.

    kind:
        NMS keeps the highest-scoring of matching boxes and drops the others. GREEDYNMM replaces them with their
        enclosing box and the highest score. NMM does the same and is transitive: boxes that match a merged box are
        merged too.
    metric:
        Boxes match if their intersection is at least `threshold` of their union (IOU), or of the smaller one (IOS).
    """

    kind: str = "GREEDYNMM"
    metric: str = "IOS"
    threshold: float = 0.5  # above 0, at most 1
    class_agnostic: bool = False  # boxes of different classes match too

    def __str__(self) -> str:
        among = "boxes of all classes" if self.class_agnostic else "boxes of a class"
        return f"{self.kind} of {among} with {self.metric} of at least {self.threshold:g}"


def merge(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    merging: Merging,
    *,
    may_enlarge: np.ndarray | None = None,
) -> Detections:
    """Merge boxes; return the resulting detections, highest score first.

    Args:
        boxes: (N, 4) float64 x1 y1 x2 y2 in pixels of the image, the precision of SAHI.
        scores: (N,) float32.
        labels: (N,) int64.
        may_enlarge: (N,) bool, boxes that enlarge the box they are merged into; all if None.
    """
    rounded = boxes.astype(np.float32)
    x1, y1, x2, y2 = rounded.T
    order = np.lexsort((y2, x2, y1, x1, -scores))  # from here on, boxes are indexed by rank
    groups = np.zeros_like(labels) if merging.class_agnostic else labels
    heads, tails = _matches(rounded[order], groups[order], merging)
    if merging.kind == "NMM":
        # Among equal scores, SAHI merges a box with its exact copies only.
        a, b = order[heads], order[tails]
        is_merged = (scores[a] > scores[b]) | (rounded[a] == rounded[b]).all(1)
        heads, tails = heads[is_merged], tails[is_merged]
        sequence = np.lexsort((order[tails], heads))
    else:
        sequence = np.lexsort((tails, heads))
    owners, turns = _owners(len(order), heads[sequence], tails[sequence], transitive=merging.kind == "NMM")
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    if merging.kind != "NMS":
        enlarging = np.ones(len(order), bool) if may_enlarge is None else may_enlarge[order]
        boxes, scores, labels = _unite(boxes, scores, labels, owners, turns, merging, enlarging)
    kept = np.flatnonzero(owners == np.arange(len(owners)))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return Detections(boxes[kept].astype(np.float32), scores[kept], labels[kept])


def _matches(boxes: np.ndarray, groups: np.ndarray, merging: Merging) -> tuple[np.ndarray, np.ndarray]:
    """Find the matching pairs of boxes within each group: the lower index of each pair, and the higher."""
    matches = [np.empty((0, 2), np.int64)]
    for one, other in _neighbors(boxes, groups):
        matching = _overlap(boxes[one], boxes[other], merging.metric) >= merging.threshold
        matches.append(np.stack([one[matching], other[matching]], 1))
    pairs = np.sort(np.concatenate(matches), 1)
    return pairs[:, 0], pairs[:, 1]


def _neighbors(boxes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over the pairs of boxes of a group that overlap along x, each pair once, in blocks."""
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(boxes[members, 0], kind="stable")]
        position = np.arange(len(members))
        counts = np.maximum(np.searchsorted(boxes[members, 0], boxes[members, 2]) - position - 1, 0)
        ends = np.cumsum(counts)
        start = 0
        while start < len(members):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
            block = counts[start:stop]
            one = np.repeat(position[start:stop], block)
            step = np.arange(len(one)) - np.repeat(ends[start:stop] - block - before, block)
            yield members[one], members[one + 1 + step]
            start = stop


def _overlap(one: np.ndarray, other: np.ndarray, metric: str) -> np.ndarray:
    """Compute the overlap (N,) of pairs of boxes (N, 4), in their precision; 0 for boxes without area."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    inner = np.maximum(0, sides[:, 0]) * np.maximum(0, sides[:, 1])
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (one, other)]
    whole = areas[0] + areas[1] - inner if metric == "IOU" else np.minimum(*areas)
    return np.divide(inner, whole, out=np.zeros_like(inner), where=whole > 0)


def _owners(count: int, heads: np.ndarray, tails: np.ndarray, *, transitive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compute (count,) the box each box is merged into, itself if it is kept; and the order of merging.

    Args:
        heads: first boxes of the pairs, ascending.
        tails: second boxes, which the heads merge in this order.
        transitive: merge the matches of a merged box into its owner; otherwise leave them alone.
    """
    owners, turns = np.full(count, -1), np.zeros(count, np.int64)
    starts, stops = np.flatnonzero(np.diff(heads, prepend=-1)), np.flatnonzero(np.diff(heads, append=-1)) + 1
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        head = heads[start]
        owner = owners[head]
        if owner < 0:
            owners[head] = owner = head
        elif owner != head and not transitive:
            continue
        free = tails[start:stop][owners[tails[start:stop]] < 0]
        owners[free] = owner
        turns[free] = start + np.arange(len(free))
    return np.where(owners < 0, np.arange(count), owners), turns


def _unite(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    owners: np.ndarray,
    turns: np.ndarray,
    merging: Merging,
    enlarging: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge boxes into their owners, one per owner and step, for all owners in parallel.

    A box that no longer matches its enlarged owner is dropped, as in SAHI.
    """
    boxes, scores, labels = boxes.copy(), scores.copy(), labels.copy()
    members = np.flatnonzero((owners != np.arange(len(owners))) & enlarging)
    members = members[np.lexsort((turns[members], owners[members]))]
    first = np.flatnonzero(np.diff(owners[members], prepend=-1))
    sizes = np.diff(first, append=len(members))
    steps = np.arange(len(members)) - np.repeat(first, sizes)
    by_step = members[np.argsort(steps, kind="stable")]
    for merged in np.split(by_step, np.cumsum(np.bincount(steps))[:-1]) if len(members) else ():
        hits = merged[_overlap(boxes[owners[merged]], boxes[merged], merging.metric) >= merging.threshold]
        hit_owners = owners[hits]
        boxes[hit_owners, :2] = np.minimum(boxes[hit_owners, :2], boxes[hits, :2])
        boxes[hit_owners, 2:] = np.maximum(boxes[hit_owners, 2:], boxes[hits, 2:])
        labels[hit_owners] = np.where(scores[hit_owners] > scores[hits], labels[hit_owners], labels[hits])
    return boxes, scores, labels
