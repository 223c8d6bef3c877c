"""What an analysis of detections says, for pictures, pages and files; docs/evaluation.md defines it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.detect.detections import Detections

CORRECT, WRONG_CLASS, POOR_BOX, DOUBLE, FALSE, IGNORED = range(6)  # kind of a detection
KINDS = ("correct", "wrong class", "poor box", "double", "false", "ignored")
ERRORS = (WRONG_CLASS, POOR_BOX, DOUBLE, FALSE)
SIZES = ("small", "medium", "large")
THRESHOLDS = np.arange(1001) / 1000  # scores at which the curves are sampled
RECALLS = np.linspace(0, 1, 101)  # those at which precision is sampled, as COCO has it


@dataclass(frozen=True)
class ImageErrors:
    """What is wrong with an image's detections of at least the best threshold."""

    found: Detections  # N
    kinds: np.ndarray  # (N,) of them
    missed: np.ndarray  # (M,) bool, of the image's boxes in the index

    @property
    def count(self) -> int:
        """Boxes that are missed, and detections that are errors."""
        return int(np.isin(self.kinds, ERRORS).sum() + self.missed.sum())


@dataclass(frozen=True)
class DetectionAnalysis:
    """Detections against the ground truth at IoU 0.5; K classes, without the background. NaN: nothing defines it."""

    classes: tuple[str, ...]  # K names
    boxes: np.ndarray  # (K,) int64, ground truth without ignored boxes
    precision: np.ndarray  # (K, 1001) at THRESHOLDS
    recall: np.ndarray  # (K, 1001)
    f1: np.ndarray  # (K, 1001)
    precision_at_recall: np.ndarray  # (K, 101) at RECALLS
    precision_of_size: np.ndarray  # (3, 101), mean of the classes that have boxes of this size
    boxes_of_size: np.ndarray  # (3,) int64
    threshold: float  # where the mean F1 of the classes is highest
    class_thresholds: np.ndarray  # (K,) where each class's F1 is highest
    confusion: np.ndarray  # (K + 1, K + 1) int64, [label of the ground truth, label found]; 0 is the background
    found: np.ndarray  # (K, 6) int64, detections of each class and kind
    missed: np.ndarray  # (K,) int64
    worst: dict[int, ImageErrors]  # image number -> its errors; those with most of them, in this order

    @property
    def counted(self) -> np.ndarray:
        """(K,) bool, classes with ground truth: means are over these."""
        return self.boxes > 0

    def mean(self, curves: np.ndarray) -> np.ndarray:
        """(S,) mean over the classes of (K, S) curves, where a class defines it."""
        defined = ~np.isnan(curves)
        counts = defined.sum(0)
        sums = np.where(defined, curves, 0).sum(0)
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)

    def at_threshold(self, curves: np.ndarray) -> np.ndarray:
        """(K,) values of (K, 1001) curves at the best threshold."""
        return curves[:, round(self.threshold * (len(THRESHOLDS) - 1))]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        curves = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        means = {name: self.at_threshold(self.mean(each)[None])[0] for name, each in curves.items()}
        labels = ["background", *self.classes]
        return {
            "best_threshold": self.threshold,
            "at_best_threshold": {name: _plain(value) for name, value in means.items()},
            "best_threshold_of_class": dict(zip(self.classes, map(_plain, self.class_thresholds), strict=True)),
            "confusion_matrix": {"labels": labels, "rows_truth_columns_found": self.confusion.tolist()},
            "errors": {"missed": int(self.missed.sum()), **dict(zip(KINDS, self.found.sum(0).tolist(), strict=True))},
        }


def _plain(value: float) -> float | None:
    return None if value != value else float(value)
