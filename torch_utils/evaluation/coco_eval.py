"""COCO detection metrics: the twelve numbers and per-class AP (https://cocodataset.org/#detection-eval).

Tests compare them with pycocotools, to 1e-12.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from torch_utils.evaluation.matching import FlatDetections, FlatGroundTruth, flatten, greedy_match, overlaps, ranks
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)  # COCO samples precision at these
_AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])  # px2: all, small, medium, large
_MAX_DETECTIONS = (1, 10, 100)  # of one class in one image
_ROWS = (  # COCO's title, abbreviation, IoU, area, maximum number of detections; in COCO's order
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
    """Metrics of one class over the whole split; NaN for a class without ground truth."""

    name: str
    boxes: int  # number of ground-truth boxes, without ignored ones
    ap: float  # IoU 0.50:0.95
    ap50: float
    ar: float  # at most 100 detections per image


@dataclass(frozen=True)
class CocoMetrics:
    """COCO metrics in original pixels; -1 for a number that has no ground truth, as in COCO."""

    stats: tuple[float, ...]  # the twelve numbers, in COCO's order
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
        """The twelve lines that pycocotools prints."""
        lines = (
            f" {title:<18} {short} @[ IoU={iou:<9} | area={area:>6s} | maxDets={limit:>3d} ] = {value:0.3f}"
            for (title, short, iou, area, limit), value in zip(_ROWS, self.stats, strict=True)
        )
        return "\n".join(lines)

    def class_table(self) -> str:
        """A text table with one line per class."""
        width = max(len("class"), *(len(c.name) for c in self.per_class))
        rule = "-" * (width + 45)
        head = f"{'class':<{width}}  {'boxes':>8}  {'AP':>9}  {'AP50':>9}  {'AR':>9}"
        rows = (f"{c.name:<{width}}  {c.boxes:>8}  {c.ap:9.3f}  {c.ap50:9.3f}  {c.ar:9.3f}" for c in self.per_class)
        return "\n".join([rule, head, rule, *rows, rule])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        names = [f"{short[1:3]} IoU={iou} area={area} maxDets={limit}" for _, short, iou, area, limit in _ROWS]
        classes = [{k: None if v != v else v for k, v in asdict(c).items()} for c in self.per_class]
        return {"stats": dict(zip(names, self.stats, strict=True)), "classes": classes}


@dataclass(frozen=True)
class Curves:
    """Precision and recall at T IoU thresholds, for K classes and 4 areas (all, small, medium, large).

    Values are -1 where a class has no ground truth of that area.
    """

    precision: np.ndarray  # (T, 101, K, 4) at RECALLS, each the maximum over all recalls at least as high
    recall: np.ndarray  # (T, K, 4) with at most 100 detections of a class per image
    recall_of_best: np.ndarray  # (T, K, 2) with at most 1 and at most 10 detections of a class per image
    box_counts: np.ndarray  # (K, 4) int64, ground-truth boxes without ignored ones


def coco_metrics(index: LabelIndex, detections: Mapping[int, Detections]) -> CocoMetrics:
    """Compute COCO metrics of detections against the ground truth of an index.

    Args:
        index: ground truth; ignored boxes are COCO's iscrowd.
        detections: image number in the index -> detections; images without an entry are not evaluated.
    """
    flat_detections, truth = flatten(index, detections)
    curves = coco_curves(flat_detections, truth, len(index.classes) - 1, IOUS)
    precision, recall = curves.precision, curves.recall
    per_class = tuple(
        ClassMetrics(
            name=name,
            boxes=int(curves.box_counts[k, 0]),
            ap=_mean(precision[:, :, k, 0], np.nan),
            ap50=_mean(precision[0, :, k, 0], np.nan),
            ar=_mean(recall[:, k, 0], np.nan),
        )
        for k, name in enumerate(index.classes[1:])
    )
    iou_50, iou_75 = 0, 5  # indices of 0.5 and 0.75 in IOUS
    stats = (
        *(precision[:, :, :, 0], precision[iou_50, :, :, 0], precision[iou_75, :, :, 0]),
        *(precision[:, :, :, area] for area in (1, 2, 3)),
        *(curves.recall_of_best[:, :, 0], curves.recall_of_best[:, :, 1], recall[:, :, 0]),
        *(recall[:, :, area] for area in (1, 2, 3)),
    )
    return CocoMetrics(tuple(_mean(values, -1.0) for values in stats), per_class)


def coco_curves(detections: FlatDetections, truth: FlatGroundTruth, num_classes: int, ious: np.ndarray) -> Curves:
    """Compute precision and recall as pycocotools does, for labels 1 .. num_classes at (T,) IoU thresholds."""
    groups, truth_groups = (each.images * (num_classes + 1) + each.labels for each in (detections, truth))
    rank = ranks(groups)
    pairs = overlaps(detections, truth, groups, truth_groups, min_iou=float(ious.min()))
    pairs = pairs.where(rank[pairs.detections] < _MAX_DETECTIONS[-1])
    outside, truth_outside = (_outside_areas(each.boxes) for each in (detections, truth))
    ignored_boxes = truth.ignored[:, None] | truth_outside  # (M, 4)
    # C = 4 T conditions: the T IoU thresholds of the first area, then those of the next
    conditions = np.tile(ious, len(_AREAS)), np.repeat(ignored_boxes, len(ious), axis=1)
    matched, matches = greedy_match(pairs, groups, *conditions, truth.ignored)

    counts = np.stack([np.bincount(truth.labels[~column], minlength=num_classes + 1) for column in ignored_boxes.T], 1)
    precision = np.full((len(_AREAS), len(ious), num_classes, len(RECALLS)), -1.0)
    recall = np.full((len(_AREAS), len(ious), num_classes), -1.0)
    recall_of_best = np.full((len(ious), num_classes, 2), -1.0)
    by_class = np.lexsort((-detections.scores, detections.labels))
    by_class = by_class[rank[by_class] < _MAX_DETECTIONS[-1]]
    match_rows = np.full(len(detections.labels), -1)
    match_rows[matched] = np.arange(len(matched))
    starts = np.searchsorted(detections.labels[by_class], np.arange(1, num_classes + 2))
    for k in range(num_classes):
        rows = by_class[starts[k] : starts[k + 1]]
        correct, ignored = _outcomes(
            match_rows[rows], matches, conditions[1], np.repeat(outside[rows], len(ious), axis=1)
        )
        for area in np.flatnonzero(counts[k + 1]):
            columns = slice(area * len(ious), (area + 1) * len(ious))
            precision[area, :, k], recall[area, :, k] = _curve(
                correct[:, columns], ignored[:, columns], counts[k + 1, area]
            )
        if counts[k + 1, 0]:
            for i, limit in enumerate(_MAX_DETECTIONS[:2]):
                recall_of_best[:, k, i] = correct[rank[rows] < limit, : len(ious)].sum(0) / counts[k + 1, 0]
    return Curves(precision.transpose(1, 3, 2, 0), recall.transpose(1, 2, 0), recall_of_best, counts[1:])


def _outside_areas(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) bool: the box is smaller or larger than each of _AREAS."""
    area = (boxes[:, 2] * boxes[:, 3])[:, None]
    return (area < _AREAS[:, 0]) | (area > _AREAS[:, 1])


def _outcomes(
    match_rows: np.ndarray, matches: np.ndarray, ignored_boxes: np.ndarray, outside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the correct and the ignored ones of n detections under each condition: (n, C) bool each.

    Args:
        match_rows: (n,) row of `matches`, -1 for a detection that overlaps no box.
        matches: (Q, C) see `greedy_match`.
        ignored_boxes: (M, C) bool.
        outside: (n, C) bool, detections that are ignored unless they match a box.
    """
    correct, ignored = np.zeros(outside.shape, bool), outside.copy()
    rows = np.flatnonzero(match_rows >= 0)
    boxes = matches[match_rows[rows]]
    is_match = boxes >= 0
    on_ignored = (
        is_match & np.take_along_axis(ignored_boxes, np.maximum(boxes, 0), 0) if len(ignored_boxes) else is_match
    )
    correct[rows] = is_match & ~on_ignored
    ignored[rows] = np.where(is_match, on_ignored, outside[rows])
    return correct, ignored


def _curve(correct: np.ndarray, ignored: np.ndarray, box_count: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 101) precision and (T,) recall of a class; `correct` and `ignored`, (n, T), are sorted by score."""
    true_positives = correct.cumsum(0, np.float64)
    false_positives = (~correct & ~ignored).cumsum(0, np.float64)
    recall = (true_positives / box_count).T
    precision = true_positives / (false_positives + true_positives + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    sampled = np.zeros((correct.shape[1], len(RECALLS)))
    for t, recall_at_iou in enumerate(np.ascontiguousarray(recall)):
        at = recall_at_iou.searchsorted(RECALLS)
        reached = at < len(recall_at_iou)
        sampled[t, reached] = precision[at[reached], t]
    return sampled, recall[:, -1] if len(correct) else np.zeros(correct.shape[1])


def _mean(values: np.ndarray, undefined: float) -> float:
    """Mean of the defined values; COCO marks undefined ones with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else undefined
