"""From the boxes of overlapping windows to one box an object, by SAHI's rules (https://github.com/obss/sahi).

The results are those of sahi 0.12, to the bit: also what decides among equal scores, and where it rounds to float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.detect.detections import Detections

_BLOCK = 1 << 20  # pairs of boxes that are looked at together: bounds the memory


@dataclass(frozen=True)
class Merging:
    """Which boxes are the same object, and what becomes of them.

    kind:
        NMS keeps the best of those that match and drops the others. GREEDYNMM makes of them the box that encloses all,
        with the best score. NMM does so too, and there those that match a box that was taken in come with it.
    metric:
        Boxes match if their intersection is at least `threshold` of their union (IOU), or of the smaller one (IOS).
    """

    kind: str = "GREEDYNMM"
    metric: str = "IOS"
    threshold: float = 0.5  # above 0, at most 1
    class_agnostic: bool = False  # boxes of several classes match too

    def __str__(self) -> str:
        among = "boxes of all classes" if self.class_agnostic else "boxes of a class"
        return f"{self.kind} of {among} with {self.metric} of at least {self.threshold:g}"


def merge(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, merging: Merging, *, uniting: np.ndarray | None = None
) -> Detections:
    """The detections that are left, best first.

    Args:
        boxes: (N, 4) float64 x1 y1 x2 y2 in one image, as SAHI has them.
        scores: (N,) float32.
        labels: (N,) int64.
        uniting: (N,) bool, those that enlarge the box that takes them in; without it all.
    """
    rounded = boxes.astype(np.float32)
    x1, y1, x2, y2 = rounded.T
    order = np.lexsort((y2, x2, y1, x1, -scores))  # from here on, boxes are known by their rank
    groups = np.zeros_like(labels) if merging.class_agnostic else labels
    heads, tails = _matches(rounded[order], groups[order], merging)
    if merging.kind == "NMM":
        # Among equal scores SAHI lets a box take in its exact copies alone.
        a, b = order[heads], order[tails]
        claims = (scores[a] > scores[b]) | (rounded[a] == rounded[b]).all(1)
        heads, tails = heads[claims], tails[claims]
        sequence = np.lexsort((order[tails], heads))
    else:
        sequence = np.lexsort((tails, heads))
    owners, turns = _owners(len(order), heads[sequence], tails[sequence], through=merging.kind == "NMM")
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    if merging.kind != "NMS":
        enlarging = np.ones(len(order), bool) if uniting is None else uniting[order]
        boxes, scores, labels = _united(boxes, scores, labels, owners, turns, merging, enlarging)
    kept = np.flatnonzero(owners == np.arange(len(owners)))
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return Detections(boxes[kept].astype(np.float32), scores[kept], labels[kept])


def _matches(boxes: np.ndarray, groups: np.ndarray, merging: Merging) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of boxes of a group that match: the lower number of each, and the higher."""
    found = [np.empty((0, 2), np.int64)]
    for one, other in _neighbors(boxes, groups):
        matching = _overlap(boxes[one], boxes[other], merging.metric) >= merging.threshold
        found.append(np.stack([one[matching], other[matching]], 1))
    pairs = np.sort(np.concatenate(found), 1)
    return pairs[:, 0], pairs[:, 1]


def _neighbors(boxes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of boxes of a group that overlap along x, once, in blocks."""
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(boxes[members, 0], kind="stable")]
        place = np.arange(len(members))
        counts = np.maximum(np.searchsorted(boxes[members, 0], boxes[members, 2]) - place - 1, 0)
        ends = np.cumsum(counts)
        start = 0
        while start < len(members):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
            block = counts[start:stop]
            one = np.repeat(place[start:stop], block)
            step = np.arange(len(one)) - np.repeat(ends[start:stop] - block - before, block)
            yield members[one], members[one + 1 + step]
            start = stop


def _overlap(one: np.ndarray, other: np.ndarray, metric: str) -> np.ndarray:
    """(N,): of each pair of boxes (N, 4), in their precision; 0 where an area is."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    inner = np.maximum(0, sides[:, 0]) * np.maximum(0, sides[:, 1])
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (one, other)]
    whole = areas[0] + areas[1] - inner if metric == "IOU" else np.minimum(*areas)
    return np.divide(inner, whole, out=np.zeros_like(inner), where=whole > 0)


def _owners(count: int, heads: np.ndarray, tails: np.ndarray, *, through: bool) -> tuple[np.ndarray, np.ndarray]:
    """(count,) the box that each belongs to, itself where it stays; and when it was taken in.

    Args:
        heads: of the pairs, ascending.
        tails: the boxes that each head may take in, in the order in which it does.
        through: what a box would take in goes to its owner where it has one; else nowhere.
    """
    owners, turns = np.full(count, -1), np.zeros(count, np.int64)
    starts, stops = np.flatnonzero(np.diff(heads, prepend=-1)), np.flatnonzero(np.diff(heads, append=-1)) + 1
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        head = heads[start]
        owner = owners[head]
        if owner < 0:
            owners[head] = owner = head
        elif owner != head and not through:
            continue
        free = tails[start:stop][owners[tails[start:stop]] < 0]
        owners[free] = owner
        turns[free] = start + np.arange(len(free))
    return np.where(owners < 0, np.arange(count), owners), turns


def _united(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    owners: np.ndarray,
    turns: np.ndarray,
    merging: Merging,
    enlarging: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the boxes are once each has taken in its own, one after the other; all owners do so side by side.

    A box is taken in only if it matches what its owner has become by then; else it is gone, as in SAHI.
    """
    boxes, scores, labels = boxes.copy(), scores.copy(), labels.copy()
    members = np.flatnonzero((owners != np.arange(len(owners))) & enlarging)
    members = members[np.lexsort((turns[members], owners[members]))]
    first = np.flatnonzero(np.diff(owners[members], prepend=-1))
    sizes = np.diff(first, append=len(members))
    steps = np.arange(len(members)) - np.repeat(first, sizes)
    by_step = members[np.argsort(steps, kind="stable")]
    for mine in np.split(by_step, np.cumsum(np.bincount(steps))[:-1]) if len(members) else ():
        hits = mine[_overlap(boxes[owners[mine]], boxes[mine], merging.metric) >= merging.threshold]
        takers = owners[hits]
        boxes[takers, :2] = np.minimum(boxes[takers, :2], boxes[hits, :2])
        boxes[takers, 2:] = np.maximum(boxes[takers, 2:], boxes[hits, 2:])
        labels[takers] = np.where(scores[takers] > scores[hits], labels[takers], labels[hits])
    return boxes, scores, labels
