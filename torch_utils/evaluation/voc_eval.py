"""Pascal VOC's average precision (http://host.robots.ox.ac.uk/pascal/VOC/, development kit, VOCevaldet.m)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from torch_utils.evaluation.matching import flatten, overlaps
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

_IOU = 0.5
_POINTS = np.arange(11) / 10  # recalls at which the precision of 2007 is read off


@dataclass(frozen=True)
class VocMetrics:
    """AP at IoU 0.5, by VOC's rules of a year."""

    year: int
    ap: dict[str, float]  # by class; NaN where there is no ground truth

    @property
    def mean(self) -> float:
        """Of the classes with ground truth; NaN if there is none."""
        values = [value for value in self.ap.values() if value == value]
        return float(np.mean(values)) if values else float("nan")

    def lines(self) -> list[str]:
        """The mean, and a line a class."""
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
    """Compare detections with the ground truth of an index.

    A detection belongs to the box of its class that it overlaps most. The first, by score, is right if the IoU is at
    least 0.5, the others are false; those on ignored (VOC: difficult) boxes do not count.

    Args:
        detections: image number in the index -> what was found there; an image that is absent does not count.
        year: 2007: mean of the precision at 11 recalls; 2012: area under the curve.
    """
    found, truth = flatten(index, detections)
    classes = len(index.classes)
    plain = replace(truth, ignored=np.zeros(len(truth.ignored), bool))  # VOC knows no crowds: IoU is IoU
    groups, truth_groups = (each.images * classes + each.labels for each in (found, truth))
    pairs = overlaps(found, plain, groups, truth_groups, least=_IOU)
    best = np.lexsort((pairs.truth, -pairs.ious, pairs.found))
    best = best[np.diff(pairs.found[best], prepend=-1) > 0]  # the first of each detection
    belongs = np.full(len(found.labels), -1)
    belongs[pairs.found[best]] = pairs.truth[best]

    boxes = np.bincount(truth.labels[~truth.ignored], minlength=classes)
    ap = {}
    for label, name in enumerate(index.classes[1:], start=1):
        rows = np.flatnonzero(found.labels == label)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        mine = belongs[rows]
        counts = (mine < 0) | ~truth.ignored[mine] if len(truth.ignored) else np.ones(len(mine), bool)
        mine = mine[counts]
        right = np.zeros(len(mine), bool)
        right[np.unique(mine, return_index=True)[1]] = True
        right &= mine >= 0
        ap[name] = _average_precision(right, int(boxes[label]), year)
    return VocMetrics(year, ap)


def _average_precision(right: np.ndarray, boxes: int, year: int) -> float:
    """Of the detections of a class, the best first, where there are `boxes` boxes to find."""
    if not boxes:
        return float("nan")
    hits = np.cumsum(right)
    recall, precision = hits / boxes, hits / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # that any recall at least as high has
    if year == 2007:
        at = np.searchsorted(recall, _POINTS)
        return float(np.append(highest, 0)[at].mean())
    return float((np.diff(recall, prepend=0) * highest).sum())
