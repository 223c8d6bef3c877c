"""The twelve COCO numbers and those of every class (https://cocodataset.org/#detection-eval).

Tests compare them with pycocotools, to the last digit.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from torch_utils.evaluation.analysis import RECALLS
from torch_utils.evaluation.matching import FlatDetections, FlatGroundTruth, flatten, greedy, overlaps, ranks
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

IOUS = np.linspace(0.5, 0.95, 10)
_AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])  # px2: all, small, medium, large
_MOST = (1, 10, 100)  # detections of a class in an image
_ROWS = (  # what COCO calls it, IoU, area, largest number of detections; in the order of the twelve numbers
    ("Average Precision", "(AP)", "0.50:0.95", "all", 100),
    ("Average Precision", "(AP)", "0.50", "all", 100),
    ("Average Precision", "(AP)", "0.75", "all", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "small", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "medium", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "large", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 1),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 10),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "small", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "medium", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "large", 100),
)


@dataclass(frozen=True)
class ClassMetrics:
    """One class over the whole split; NaN where it has no ground truth."""

    name: str
    boxes: int  # of the ground truth, without ignored ones
    ap: float  # IoU 0.50:0.95
    ap50: float
    ar: float  # at most 100 detections an image


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's numbers, in original pixels. A number that nothing defines (no ground truth) is -1, as COCO has it."""

    stats: tuple[float, ...]  # the twelve, in COCO's order
    per_class: tuple[ClassMetrics, ...]

    @property
    def ap(self) -> float:
        """mAP, IoU 0.50:0.95."""
        return self.stats[0]

    @property
    def ap50(self) -> float:
        """mAP at IoU 0.50."""
        return self.stats[1]

    def table(self) -> str:
        """The twelve lines that COCO prints."""
        lines = (
            f" {title:<18} {short} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {value:0.3f}"
            for (title, short, iou, area, most), value in zip(_ROWS, self.stats, strict=True)
        )
        return "\n".join(lines)

    def class_table(self) -> str:
        """One line a class."""
        width = max(len("class"), *(len(c.name) for c in self.per_class))
        rule = "-" * (width + 45)
        head = f"{'class':<{width}}  {'boxes':>8}  {'AP':>9}  {'AP50':>9}  {'AR':>9}"
        rows = (f"{c.name:<{width}}  {c.boxes:>8}  {c.ap:9.3f}  {c.ap50:9.3f}  {c.ar:9.3f}" for c in self.per_class)
        return "\n".join([rule, head, rule, *rows, rule])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        names = [f"{short[1:3]} IoU={iou} area={area} maxDets={most}" for _, short, iou, area, most in _ROWS]
        classes = [{k: None if v != v else v for k, v in asdict(c).items()} for c in self.per_class]
        return {"stats": dict(zip(names, self.stats, strict=True)), "classes": classes}


@dataclass(frozen=True)
class Curves:
    """T thresholds of the IoU, K classes and 4 areas (all, small, medium, large); -1 where nothing is to be found."""

    precision: np.ndarray  # (T, 101, K, 4), at RECALLS: the highest that any recall at least as high has
    recall: np.ndarray  # (T, K, 4), of all detections, at most 100 of a class in an image
    few: np.ndarray  # (T, K, 2), recall of the best 1 and the best 10
    boxes: np.ndarray  # (K, 4) int64, ground truth without ignored boxes


def coco_metrics(index: LabelIndex, detections: Mapping[int, Detections]) -> CocoMetrics:
    """Compare detections with the ground truth of an index.

    Args:
        index: ground truth; ignored boxes are COCO's iscrowd.
        detections: image number in the index -> what was found there; an image that is absent does not count.
    """
    found, truth = flatten(index, detections)
    curves = coco_curves(found, truth, len(index.classes) - 1, IOUS)
    precision, recall = curves.precision, curves.recall
    per_class = tuple(
        ClassMetrics(
            name=name,
            boxes=int(curves.boxes[k, 0]),
            ap=_mean(precision[:, :, k, 0], np.nan),
            ap50=_mean(precision[0, :, k, 0], np.nan),
            ar=_mean(recall[:, k, 0], np.nan),
        )
        for k, name in enumerate(index.classes[1:])
    )
    half, three_quarters = 0, 5  # places of 0.5 and 0.75 in IOUS
    stats = (
        *(precision[:, :, :, 0], precision[half, :, :, 0], precision[three_quarters, :, :, 0]),
        *(precision[:, :, :, area] for area in (1, 2, 3)),
        *(curves.few[:, :, 0], curves.few[:, :, 1], recall[:, :, 0]),
        *(recall[:, :, area] for area in (1, 2, 3)),
    )
    return CocoMetrics(tuple(_mean(values, -1.0) for values in stats), per_class)


def coco_curves(found: FlatDetections, truth: FlatGroundTruth, classes: int, ious: np.ndarray) -> Curves:
    """Precision and recall as pycocotools has them, for labels 1 .. classes at the (T,) IoU thresholds `ious`."""
    groups, truth_groups = (each.images * (classes + 1) + each.labels for each in (found, truth))
    rank = ranks(groups)
    pairs = overlaps(found, truth, groups, truth_groups, least=float(ious.min()))
    pairs = pairs.where(rank[pairs.found] < _MOST[-1])
    outside, truth_outside = (_outside(each.boxes) for each in (found, truth))
    aside = truth.ignored[:, None] | truth_outside  # (M, 4)
    conditions = np.tile(ious, len(_AREAS)), np.repeat(aside, len(ious), axis=1)  # C = 4 T, area by area
    chosen, taken = greedy(pairs, groups, *conditions, truth.ignored)

    counts = np.stack([np.bincount(truth.labels[~column], minlength=classes + 1) for column in aside.T], 1)
    precision = np.full((len(_AREAS), len(ious), classes, len(RECALLS)), -1.0)
    recall = np.full((len(_AREAS), len(ious), classes), -1.0)
    few = np.full((len(ious), classes, 2), -1.0)
    by_class = np.lexsort((-found.scores, found.labels))
    by_class = by_class[rank[by_class] < _MOST[-1]]
    place = np.full(len(found.labels), -1)
    place[chosen] = np.arange(len(chosen))
    starts = np.searchsorted(found.labels[by_class], np.arange(1, classes + 2))
    for k in range(classes):
        rows = by_class[starts[k] : starts[k + 1]]
        right, ignored = _outcomes(place[rows], taken, conditions[1], np.repeat(outside[rows], len(ious), axis=1))
        for area in np.flatnonzero(counts[k + 1]):
            columns = slice(area * len(ious), (area + 1) * len(ious))
            precision[area, :, k], recall[area, :, k] = _curve(
                right[:, columns], ignored[:, columns], counts[k + 1, area]
            )
        if counts[k + 1, 0]:
            for i, most in enumerate(_MOST[:2]):
                few[:, k, i] = right[rank[rows] < most, : len(ious)].sum(0) / counts[k + 1, 0]
    return Curves(precision.transpose(1, 3, 2, 0), recall.transpose(1, 2, 0), few, counts[1:])


def _outside(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) bool: whether a box's area is in none of the areas."""
    area = (boxes[:, 2] * boxes[:, 3])[:, None]
    return (area < _AREAS[:, 0]) | (area > _AREAS[:, 1])


def _outcomes(
    place: np.ndarray, taken: np.ndarray, aside: np.ndarray, outside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) bool each: which of n detections are right, and which do not count, under each condition.

    Args:
        place: (n,) row of `taken`, -1 for a detection that has none.
        taken: (Q, C) see `greedy`.
        aside: (M, C) bool.
        outside: (n, C) bool, detections that do not count unless they took a box.
    """
    right, ignored = np.zeros(outside.shape, bool), outside.copy()
    rows = np.flatnonzero(place >= 0)
    chosen = taken[place[rows]]
    took = chosen >= 0
    set_aside = took & np.take_along_axis(aside, np.maximum(chosen, 0), 0) if len(aside) else took
    right[rows] = took & ~set_aside
    ignored[rows] = np.where(took, set_aside, outside[rows])
    return right, ignored


def _curve(right: np.ndarray, ignored: np.ndarray, boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 101) precision and (T,) recall of a class; `right` and `ignored`, (n, T), are sorted by score."""
    hits = right.cumsum(0, np.float64)
    misses = (~right & ~ignored).cumsum(0, np.float64)
    recall = (hits / boxes).T
    precision = np.maximum.accumulate((hits / (misses + hits + np.spacing(1)))[::-1])[::-1]
    points = np.zeros((right.shape[1], len(RECALLS)))
    for t, reached in enumerate(np.ascontiguousarray(recall)):
        at = reached.searchsorted(RECALLS)
        there = at < len(reached)
        points[t, there] = precision[at[there], t]
    return points, recall[:, -1] if len(right) else np.zeros(right.shape[1])


def _mean(values: np.ndarray, undefined: float) -> float:
    """COCO marks what is undefined with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else undefined
