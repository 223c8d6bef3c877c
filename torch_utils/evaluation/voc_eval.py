"""Pascal VOC average precision (http://host.robots.ox.ac.uk/pascal/VOC/, development kit, VOCevaldet.m)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from torch_utils.evaluation.matching import flatten, overlaps
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

_IOU = 0.5
_RECALLS_2007 = np.arange(11) / 10  # VOC 2007 averages precision over these


@dataclass(frozen=True)
class VocMetrics:
    """AP at IoU 0.5 by the rules of VOC 2007 or 2012."""

    year: int
    ap: dict[str, float]  # by class; NaN for a class without ground truth

    @property
    def mean(self) -> float:
        """mAP over the classes with ground truth; NaN if there is none."""
        values = [value for value in self.ap.values() if value == value]
        return float(np.mean(values)) if values else float("nan")

    def lines(self) -> list[str]:
        """A line with the mAP, then one line per class."""
        width = max(map(len, self.ap), default=0)
        return [
            f"VOC {self.year} mAP, IoU 0.50: {self.mean:.4f}",
            *(f"  {n:<{width}}  {v:.4f}" for n, v in self.ap.items()),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        values = {"mean": self.mean, **self.ap}
        mean, *classes = (None if value != value else value for value in values.values())
        return {"year": self.year, "mean": mean, "classes": dict(zip(self.ap, classes, strict=True))}


def voc_metrics(index: LabelIndex, detections: Mapping[int, Detections], year: int) -> VocMetrics:
    """Compute VOC's AP of detections against the ground truth of an index.

    Each detection is assigned to the box of its class with the highest IoU. A box's first detection by score is correct
    if the IoU is at least 0.5; the others are false positives. Detections of ignored (VOC: difficult) boxes do not
    count.

    Args:
        detections: image number in the index -> detections; images without an entry are not evaluated.
        year: 2007: mean precision at 11 recalls; 2012: area under the curve.
    """
    flat, truth = flatten(index, detections)
    num_labels = len(index.classes)
    none_ignored = replace(truth, ignored=np.zeros(len(truth.ignored), bool))  # plain IoU: VOC has no crowd boxes
    groups, truth_groups = (each.images * num_labels + each.labels for each in (flat, truth))
    pairs = overlaps(flat, none_ignored, groups, truth_groups, min_iou=_IOU)
    best = np.lexsort((pairs.truth, -pairs.ious, pairs.detections))
    best = best[np.diff(pairs.detections[best], prepend=-1) > 0]  # the first pair of each detection
    assigned = np.full(len(flat.labels), -1)
    assigned[pairs.detections[best]] = pairs.truth[best]

    box_counts = np.bincount(truth.labels[~truth.ignored], minlength=num_labels)
    ap = {}
    for label, name in enumerate(index.classes[1:], start=1):
        rows = np.flatnonzero(flat.labels == label)
        rows = rows[np.argsort(-flat.scores[rows], kind="stable")]
        boxes = assigned[rows]
        counted = (boxes < 0) | ~truth.ignored[boxes] if len(truth.ignored) else np.ones(len(boxes), bool)
        boxes = boxes[counted]
        correct = np.zeros(len(boxes), bool)
        correct[np.unique(boxes, return_index=True)[1]] = True
        correct &= boxes >= 0
        ap[name] = _average_precision(correct, int(box_counts[label]), year)
    return VocMetrics(year, ap)


def _average_precision(correct: np.ndarray, box_count: int, year: int) -> float:
    """AP of a class; `correct`, (n,) bool, is sorted by descending score."""
    if not box_count:
        return float("nan")
    true_positives = np.cumsum(correct)
    recall, precision = true_positives / box_count, true_positives / np.arange(1, len(correct) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # maximum over all recalls at least as high
    if year == 2007:
        at = np.searchsorted(recall, _RECALLS_2007)
        return float(np.append(envelope, 0)[at].mean())
    return float((np.diff(recall, prepend=0) * envelope).sum())
