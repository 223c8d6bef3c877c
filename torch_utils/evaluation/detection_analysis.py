"""Why a detector scores as it does: curves over the score, confusion of classes, kinds of errors, the worst images.

docs/evaluation.md defines every word.
"""

from collections.abc import Mapping

import numpy as np

from torch_utils.evaluation.analysis import (
    CORRECT,
    DOUBLE,
    ERRORS,
    FALSE,
    IGNORED,
    KINDS,
    POOR_BOX,
    THRESHOLDS,
    WRONG_CLASS,
    DetectionAnalysis,
    ImageErrors,
)  # fmt: skip
from torch_utils.evaluation.coco_eval import coco_curves
from torch_utils.evaluation.matching import FlatDetections, FlatGroundTruth, Pairs, flatten, greedy, overlaps
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

_IOU = 0.5  # of a detection that is right
_NEAR = 0.1  # of one that means the box, but has it poorly
_MOST_IMAGES = 12
_NO_TRUTH_THRESHOLD = 0.5  # where there is nothing to be found, no threshold is best


def analyse(index: LabelIndex, detections: Mapping[int, Detections]) -> DetectionAnalysis:
    """Compare detections with the ground truth of an index at IoU 0.5.

    Args:
        index: ground truth; ignored boxes are neither missed nor is what is found there false.
        detections: image number in the index -> what was found there; an image that is absent does not count.
    """
    found, truth = flatten(index, detections)
    classes = len(index.classes) - 1
    pairs = overlaps(found, truth, found.images, truth.images, least=_NEAR)
    same = found.labels[pairs.found] == truth.labels[pairs.truth]
    taken = _match(pairs.where(same), found.images * (classes + 1) + found.labels, truth)
    kinds = _kinds(pairs, same, taken, found, truth)
    boxes = np.bincount(truth.labels[~truth.ignored], minlength=classes + 1)[1:]
    precision, recall, f1 = _score_curves(found, kinds, boxes)
    counted = boxes > 0
    threshold = _NO_TRUTH_THRESHOLD if not counted.any() else _best(f1[counted].mean(0))
    shown = found.scores >= np.float32(threshold)
    seen = np.zeros(len(truth.labels), bool)
    seen[taken[shown & (kinds == CORRECT)]] = True
    missed = ~seen & ~truth.ignored
    curves = coco_curves(found, truth, classes, np.array([_IOU]))
    at_recall = np.where(curves.precision[0] < 0, np.nan, curves.precision[0])  # (101, K, 4)
    return DetectionAnalysis(
        classes=tuple(index.classes[1:]),
        boxes=boxes,
        precision=precision,
        recall=recall,
        f1=f1,
        precision_at_recall=at_recall[:, :, 0].T,
        precision_of_size=_mean_of_classes(at_recall[:, :, 1:]),
        boxes_of_size=curves.boxes[:, 1:].sum(0),
        threshold=threshold,
        class_thresholds=np.array([_best(each) if has else np.nan for each, has in zip(f1, counted, strict=True)]),
        confusion=_confusion(pairs, found, truth, shown, classes),
        found=np.bincount(
            (found.labels[shown] - 1) * len(KINDS) + kinds[shown], minlength=classes * len(KINDS)
        ).reshape(classes, len(KINDS)),
        missed=np.bincount(truth.labels[missed], minlength=classes + 1)[1:],
        worst=_worst(found, truth, kinds, shown, missed),
    )


def _match(pairs: Pairs, groups: np.ndarray, truth: FlatGroundTruth) -> np.ndarray:
    """(N,) int64: the box of the ground truth that each detection takes at IoU 0.5, -1 for none."""
    taken = np.full(len(groups), -1)
    close = pairs.where(pairs.ious >= _IOU)
    chosen, boxes = greedy(close, groups, np.array([_IOU]), truth.ignored[:, None], truth.ignored)
    taken[chosen] = boxes[:, 0]
    return taken


def _kinds(
    pairs: Pairs, same: np.ndarray, taken: np.ndarray, found: FlatDetections, truth: FlatGroundTruth
) -> np.ndarray:
    """(N,) int64 kind of every detection; the first that fits, from the last line to the first."""
    kinds = np.full(len(found.labels), FALSE)
    close, real = pairs.ious >= _IOU, ~truth.ignored[pairs.truth]
    kinds[pairs.found[same & real & ~close]] = POOR_BOX
    kinds[pairs.found[~same & real & close]] = WRONG_CLASS
    kinds[pairs.found[same & real & close]] = DOUBLE
    took = taken >= 0
    kinds[took] = np.where(truth.ignored[taken[took]], IGNORED, CORRECT)
    return kinds


def _score_curves(
    found: FlatDetections, kinds: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, 1001) precision, recall and F1 of the detections of at least each threshold."""
    shape = len(boxes), len(THRESHOLDS)
    right, all_of_them = np.zeros(shape), np.zeros(shape)
    limits = THRESHOLDS.astype(np.float32)
    order = np.lexsort((found.scores, found.labels))
    order = order[kinds[order] != IGNORED]
    starts = np.searchsorted(found.labels[order], np.arange(1, len(boxes) + 2))
    for k in range(len(boxes)):
        rows = order[starts[k] : starts[k + 1]]  # the lowest score first
        at = np.searchsorted(found.scores[rows], limits)
        left = np.concatenate([np.cumsum((kinds[rows] == CORRECT)[::-1])[::-1], [0]])
        right[k], all_of_them[k] = left[at], len(rows) - at
    total = np.where(boxes > 0, boxes, np.nan)[:, None]
    precision = np.divide(right, all_of_them, out=np.full(shape, np.nan), where=(all_of_them > 0) & (total > 0))
    return precision, right / total, 2 * right / (all_of_them + total)


def _best(curve: np.ndarray) -> float:
    """The threshold of the highest value; of several, the middle of their longest run."""
    high = np.concatenate([[False], curve >= curve.max() - 1e-12, [False]])
    first, after = np.flatnonzero(np.diff(high.astype(int))).reshape(-1, 2).T
    longest = (after - first).argmax()
    return float(THRESHOLDS[(first[longest] + after[longest] - 1) // 2])


def _confusion(
    pairs: Pairs, found: FlatDetections, truth: FlatGroundTruth, shown: np.ndarray, classes: int
) -> np.ndarray:
    """(K + 1, K + 1): which label of the ground truth goes with which that was found, whatever the class."""
    taken = _match(pairs.where(shown[pairs.found]), found.images, truth)
    took = np.flatnonzero(taken >= 0)
    took = took[~truth.ignored[taken[took]]]
    false = shown & (taken < 0)
    missed = ~truth.ignored
    missed[taken[took]] = False
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(confusion, (truth.labels[taken[took]], found.labels[took]), 1)
    confusion[0] += np.bincount(found.labels[false], minlength=classes + 1)
    confusion[:, 0] += np.bincount(truth.labels[missed], minlength=classes + 1)
    return confusion


def _mean_of_classes(curves: np.ndarray) -> np.ndarray:
    """(3, 101) from (101, K, 3), NaN for a size that no class has."""
    return np.stack([
        each[:, ~np.isnan(each[0])].mean(1) if not np.isnan(each[0]).all() else np.full(len(each), np.nan)
        for each in np.moveaxis(curves, 2, 0)
    ])  # fmt: skip


def _worst(
    found: FlatDetections, truth: FlatGroundTruth, kinds: np.ndarray, shown: np.ndarray, missed: np.ndarray
) -> dict[int, ImageErrors]:
    images = np.concatenate([found.images[shown & np.isin(kinds, ERRORS)], truth.images[missed]])
    which, counts = np.unique(images, return_counts=True)
    worst = {}
    for image in which[np.argsort(-counts, kind="stable")[:_MOST_IMAGES]].tolist():
        rows = shown & (found.images == image)
        boxes = found.boxes[rows]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32)
        there = Detections(corners, found.scores[rows], found.labels[rows])
        worst[image] = ImageErrors(there, kinds[rows], missed[truth.images == image])
    return worst
