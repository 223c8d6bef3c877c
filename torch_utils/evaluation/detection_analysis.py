"""Error analysis at IoU 0.5: curves over the score, confusion matrix, error kinds, worst images.

docs/evaluation.md defines the terms. The error kinds follow TIDE (Bolya et al. 2020, https://arxiv.org/abs/2008.08439).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_utils.evaluation.coco_eval import coco_curves
from torch_utils.evaluation.matching import FlatDetections, FlatGroundTruth, Pairs, flatten, greedy_match, overlaps
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

CORRECT, WRONG_CLASS, POOR_LOCALIZATION, DUPLICATE, BACKGROUND, IGNORED = range(6)  # kind of a detection
KINDS = ("correct", "wrong class", "poor localization", "duplicate", "background", "ignored")
ERRORS = (WRONG_CLASS, POOR_LOCALIZATION, DUPLICATE, BACKGROUND)
SIZES = ("small", "medium", "large")
THRESHOLDS = np.arange(1001) / 1000  # scores at which the curves are sampled
_JSON_KINDS = ("correct", "wrong class", "poor box", "double", "false", "ignored")  # keys of KINDS in metrics.json
_MATCH_IOU = 0.5  # minimum of a correct detection
_NEAR_IOU = 0.1  # minimum of a poorly localized one
_MOST_IMAGES = 12
_NO_TRUTH_THRESHOLD = 0.5  # without ground truth F1 is undefined at every threshold


@dataclass(frozen=True)
class ImageErrors:
    """Errors in one image, of the detections at or above the best threshold."""

    detections: Detections  # N
    kinds: np.ndarray  # (N,) index into KINDS
    missed: np.ndarray  # (M,) bool, of the image's boxes in the index

    @property
    def count(self) -> int:
        """Number of missed boxes and of detections whose kind is in ERRORS."""
        return int(np.isin(self.kinds, ERRORS).sum() + self.missed.sum())


@dataclass(frozen=True)
class DetectionAnalysis:
    """Comparison of detections and ground truth at IoU 0.5, for K classes without the background.

    Undefined values are NaN.
    """

    classes: tuple[str, ...]  # K names
    box_counts: np.ndarray  # (K,) int64, ground-truth boxes without ignored ones
    precision: np.ndarray  # (K, 1001) at THRESHOLDS
    recall: np.ndarray  # (K, 1001)
    f1: np.ndarray  # (K, 1001)
    precision_at_recall: np.ndarray  # (K, 101) at RECALLS of coco_eval
    precision_by_size: np.ndarray  # (3, 101), mean over the classes that have boxes of this size
    box_counts_by_size: np.ndarray  # (3,) int64
    threshold: float  # best threshold: maximizes the mean F1 of the classes
    class_thresholds: np.ndarray  # (K,) maximizes each class's F1
    confusion: np.ndarray  # (K + 1, K + 1) int64, [ground-truth label, detected label]; 0 is the background
    detection_counts: np.ndarray  # (K, 6) int64, detections at the best threshold by class and kind
    missed: np.ndarray  # (K,) int64
    worst: dict[int, ImageErrors]  # image number -> its errors; the images with most errors, in descending order

    @property
    def has_boxes(self) -> np.ndarray:
        """(K,) bool, classes with ground truth; means are over these."""
        return self.box_counts > 0

    def mean(self, curves: np.ndarray) -> np.ndarray:
        """(S,) mean of (K, S) curves over the classes that define them."""
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
        counts = dict(zip(_JSON_KINDS, self.detection_counts.sum(0).tolist(), strict=True))
        return {
            "best_threshold": self.threshold,
            "at_best_threshold": {name: _none_for_nan(value) for name, value in means.items()},
            "best_threshold_of_class": dict(zip(self.classes, map(_none_for_nan, self.class_thresholds), strict=True)),
            "confusion_matrix": {"labels": labels, "rows_truth_columns_found": self.confusion.tolist()},
            "errors": {"missed": int(self.missed.sum()), **counts},
        }


def analyze_detections(index: LabelIndex, detections: Mapping[int, Detections]) -> DetectionAnalysis:
    """Compare detections with the ground truth of an index at IoU 0.5.

    Args:
        index: ground truth; ignored boxes are not counted as missed, nor detections of them as errors.
        detections: image number in the index -> detections; images without an entry are not evaluated.
    """
    flat, truth = flatten(index, detections)
    num_classes = len(index.classes) - 1
    pairs = overlaps(flat, truth, flat.images, truth.images, min_iou=_NEAR_IOU)
    same_class = flat.labels[pairs.detections] == truth.labels[pairs.truth]
    matches = _match(pairs.where(same_class), flat.images * (num_classes + 1) + flat.labels, truth)
    kinds = _kinds(pairs, same_class, matches, flat, truth)
    box_counts = np.bincount(truth.labels[~truth.ignored], minlength=num_classes + 1)[1:]
    precision, recall, f1 = _score_curves(flat, kinds, box_counts)
    has_boxes = box_counts > 0
    threshold = _best_threshold(f1[has_boxes].mean(0)) if has_boxes.any() else _NO_TRUTH_THRESHOLD
    kept = flat.scores >= np.float32(threshold)
    detected = np.zeros(len(truth.labels), bool)
    detected[matches[kept & (kinds == CORRECT)]] = True
    missed = ~detected & ~truth.ignored
    curves = coco_curves(flat, truth, num_classes, np.array([_MATCH_IOU]))
    at_recall = np.where(curves.precision[0] < 0, np.nan, curves.precision[0])  # (101, K, 4)
    class_and_kind = (flat.labels[kept] - 1) * len(KINDS) + kinds[kept]
    return DetectionAnalysis(
        classes=tuple(index.classes[1:]),
        box_counts=box_counts,
        precision=precision,
        recall=recall,
        f1=f1,
        precision_at_recall=at_recall[:, :, 0].T,
        precision_by_size=_mean_of_classes(at_recall[:, :, 1:]),
        box_counts_by_size=curves.box_counts[:, 1:].sum(0),
        threshold=threshold,
        class_thresholds=np.array(
            [_best_threshold(curve) if count else np.nan for curve, count in zip(f1, box_counts, strict=True)]
        ),
        confusion=_confusion(pairs, flat, truth, kept, num_classes),
        detection_counts=np.bincount(class_and_kind, minlength=num_classes * len(KINDS)).reshape(-1, len(KINDS)),
        missed=np.bincount(truth.labels[missed], minlength=num_classes + 1)[1:],
        worst=_worst_images(flat, truth, kinds, kept, missed),
    )


def _match(pairs: Pairs, groups: np.ndarray, truth: FlatGroundTruth) -> np.ndarray:
    """(N,) int64: row of the ground-truth box that each detection matches at IoU 0.5, -1 for none."""
    matches = np.full(len(groups), -1)
    close = pairs.where(pairs.ious >= _MATCH_IOU)
    matched, boxes = greedy_match(close, groups, np.array([_MATCH_IOU]), truth.ignored[:, None], truth.ignored)
    matches[matched] = boxes[:, 0]
    return matches


def _kinds(
    pairs: Pairs, same_class: np.ndarray, matches: np.ndarray, detections: FlatDetections, truth: FlatGroundTruth
) -> np.ndarray:
    """(N,) int64 kind of every detection; of several that apply, the one assigned last here."""
    kinds = np.full(len(detections.labels), BACKGROUND)
    close, counted = pairs.ious >= _MATCH_IOU, ~truth.ignored[pairs.truth]
    kinds[pairs.detections[same_class & counted & ~close]] = POOR_LOCALIZATION
    kinds[pairs.detections[~same_class & counted & close]] = WRONG_CLASS
    kinds[pairs.detections[same_class & counted & close]] = DUPLICATE
    is_match = matches >= 0
    kinds[is_match] = np.where(truth.ignored[matches[is_match]], IGNORED, CORRECT)
    return kinds


def _score_curves(
    detections: FlatDetections, kinds: np.ndarray, box_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, 1001) precision, recall and F1 of the detections whose score is at least each of THRESHOLDS."""
    shape = len(box_counts), len(THRESHOLDS)
    correct, total = np.zeros(shape), np.zeros(shape)
    thresholds = THRESHOLDS.astype(np.float32)
    order = np.lexsort((detections.scores, detections.labels))
    order = order[kinds[order] != IGNORED]
    starts = np.searchsorted(detections.labels[order], np.arange(1, len(box_counts) + 2))
    for k in range(len(box_counts)):
        rows = order[starts[k] : starts[k + 1]]  # ascending scores
        at = np.searchsorted(detections.scores[rows], thresholds)
        correct_from = np.concatenate([np.cumsum((kinds[rows] == CORRECT)[::-1])[::-1], [0]])
        correct[k], total[k] = correct_from[at], len(rows) - at
    boxes = np.where(box_counts > 0, box_counts, np.nan)[:, None]
    precision = np.divide(correct, total, out=np.full(shape, np.nan), where=(total > 0) & (boxes > 0))
    return precision, correct / boxes, 2 * correct / (total + boxes)


def _best_threshold(curve: np.ndarray) -> float:
    """The threshold that maximizes a (1001,) curve: the middle of the longest run of maxima."""
    is_max = np.concatenate([[False], curve >= curve.max() - 1e-12, [False]])
    start, end = np.flatnonzero(np.diff(is_max.astype(int))).reshape(-1, 2).T
    longest = (end - start).argmax()
    return float(THRESHOLDS[(start[longest] + end[longest] - 1) // 2])


def _confusion(
    pairs: Pairs, detections: FlatDetections, truth: FlatGroundTruth, kept: np.ndarray, num_classes: int
) -> np.ndarray:
    """(K + 1, K + 1) confusion matrix of the kept detections, matched regardless of their class."""
    matches = _match(pairs.where(kept[pairs.detections]), detections.images, truth)
    matched = np.flatnonzero(matches >= 0)
    matched = matched[~truth.ignored[matches[matched]]]
    unmatched = kept & (matches < 0)
    missed = ~truth.ignored
    missed[matches[matched]] = False
    confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(confusion, (truth.labels[matches[matched]], detections.labels[matched]), 1)
    confusion[0] += np.bincount(detections.labels[unmatched], minlength=num_classes + 1)
    confusion[:, 0] += np.bincount(truth.labels[missed], minlength=num_classes + 1)
    return confusion


def _mean_of_classes(curves: np.ndarray) -> np.ndarray:
    """(3, 101) mean over the classes of (101, K, 3) curves, NaN for a size that no class has."""
    return np.stack([
        each[:, ~np.isnan(each[0])].mean(1) if not np.isnan(each[0]).all() else np.full(len(each), np.nan)
        for each in np.moveaxis(curves, 2, 0)
    ])  # fmt: skip


def _worst_images(
    detections: FlatDetections, truth: FlatGroundTruth, kinds: np.ndarray, kept: np.ndarray, missed: np.ndarray
) -> dict[int, ImageErrors]:
    """Up to _MOST_IMAGES images with errors, most errors first."""
    image_of_error = np.concatenate([detections.images[kept & np.isin(kinds, ERRORS)], truth.images[missed]])
    images, counts = np.unique(image_of_error, return_counts=True)
    worst = {}
    for image in images[np.argsort(-counts, kind="stable")[:_MOST_IMAGES]].tolist():
        rows = kept & (detections.images == image)
        boxes = detections.boxes[rows]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32)
        in_image = Detections(corners, detections.scores[rows], detections.labels[rows])
        worst[image] = ImageErrors(in_image, kinds[rows], missed[truth.images == image])
    return worst


def _none_for_nan(value: float) -> float | None:
    return None if value != value else float(value)
