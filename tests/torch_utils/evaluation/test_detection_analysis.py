"""Every definition of docs/evaluation.md, by hand on small scenes and by a plain loop on generated ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.support.scenes import NOTHING, detections_of, index_of, one_box, random_scene
from torch_utils.evaluation.coco_eval import coco_metrics
from torch_utils.evaluation.detection_analysis import (
    BACKGROUND,
    CORRECT,
    DUPLICATE,
    ERRORS,
    IGNORED,
    POOR_LOCALIZATION,
    THRESHOLDS,
    WRONG_CLASS,
    DetectionAnalysis,
    analyze_detections,
)  # fmt: skip
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex

scenes = st.tuples(st.integers(0, 10_000), st.integers(1, 8))


def whole_scene(seed: int, images: int) -> tuple[LabelIndex, dict[int, Detections]]:
    index, detections = random_scene(seed, images)
    return index, {i: detections.get(i, NOTHING) for i in range(images)}


def iou(a: np.ndarray, b: np.ndarray, crowd: bool) -> float:
    a, b = a.astype(float), b.astype(float)
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = sides[0] * sides[1]
    area_a, area_b = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return common / (area_a if crowd else area_a + area_b - common)


def loop_confusion(index: LabelIndex, detections: dict[int, Detections], threshold: float) -> np.ndarray:
    """The definition, as a loop: greedy by score, whatever the class, each box once, ignored ones if nothing else."""
    matrix = np.zeros((len(index.classes),) * 2, int)
    for i, all_found in detections.items():
        boxes, labels, ignored = (each[index.rows(i)] for each in (index.boxes, index.labels, index.ignored))
        free = np.ones(len(boxes), bool)
        for d in np.argsort(-all_found.scores, kind="stable"):
            if all_found.scores[d] < np.float32(threshold):
                continue
            overlaps = [iou(all_found.boxes[d], b, c) for b, c in zip(boxes, ignored, strict=True)]
            real = [(o, t) for t, o in enumerate(overlaps) if o >= 0.5 and free[t] and not ignored[t]]
            if real:
                taken = max(real)[1]
                free[taken] = False
                matrix[labels[taken], all_found.labels[d]] += 1
            elif not any(o >= 0.5 for o, c in zip(overlaps, ignored, strict=True) if c):
                matrix[0, all_found.labels[d]] += 1
        for label in labels[free & ~ignored]:
            matrix[label, 0] += 1
    return matrix


@examples(40)
@given(scenes)
def test_confusion_is_the_loop_of_its_definition(scene: tuple[int, int]) -> None:
    index, detections = whole_scene(*scene)
    analysis = analyze_detections(index, detections)
    np.testing.assert_array_equal(analysis.confusion, loop_confusion(index, detections, analysis.threshold))


@examples(40)
@given(scenes)
def test_every_box_and_every_detection_counts_once(scene: tuple[int, int]) -> None:
    index, detections = whole_scene(*scene)
    analysis = analyze_detections(index, detections)
    boxes = np.bincount(index.labels[~index.ignored], minlength=4)[1:]
    np.testing.assert_array_equal(analysis.box_counts, boxes)
    np.testing.assert_array_equal(analysis.detection_counts[:, CORRECT] + analysis.missed, boxes)
    np.testing.assert_array_equal(analysis.confusion[1:].sum(1), boxes)
    assert analysis.confusion[0, 0] == 0
    shown = [d.labels[d.scores >= np.float32(analysis.threshold)] for d in detections.values()]
    of_class = np.bincount(np.concatenate(shown), minlength=4)[1:]
    np.testing.assert_array_equal(analysis.detection_counts.sum(1), of_class)
    assert (analysis.confusion[:, 1:].sum(0) <= of_class).all()  # those on ignored boxes are missing
    errors = sum(errors.count for errors in analysis.worst.values())
    assert errors == analysis.detection_counts[:, list(ERRORS)].sum() + analysis.missed.sum()


@examples(40)
@given(scenes)
def test_curves_are_as_curves_must_be(scene: tuple[int, int]) -> None:
    index, detections = whole_scene(*scene)
    analysis = analyze_detections(index, detections)
    has = analysis.has_boxes
    for curves in (analysis.recall, analysis.precision_at_recall):
        assert (np.diff(curves[has], axis=1) <= 1e-12).all()
        assert np.isnan(curves[~has]).all()
    for curves in (analysis.precision, analysis.recall, analysis.f1, analysis.precision_at_recall):
        assert ((curves >= 0) & (curves <= 1) | np.isnan(curves)).all()
    p, r = analysis.precision[has], analysis.recall[has]
    defined = ~np.isnan(p) & (p + r > 0)
    np.testing.assert_allclose(analysis.f1[has][defined], (2 * p * r / np.where(p + r > 0, p + r, 1))[defined])
    metrics = coco_metrics(index, detections)
    np.testing.assert_allclose(analysis.precision_at_recall.mean(1), [c.ap50 for c in metrics.per_class], atol=1e-12)
    if has.any():
        assert analysis.mean(analysis.f1)[round(1000 * analysis.threshold)] == pytest.approx(
            np.nanmax(analysis.mean(analysis.f1))
        )
        for k in np.flatnonzero(has):
            assert analysis.f1[k][round(1000 * analysis.class_thresholds[k])] == pytest.approx(analysis.f1[k].max())


@examples(20)
@given(scenes, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(scene: tuple[int, int], random) -> None:
    index, detections = whole_scene(*scene)
    order = list(range(len(index)))
    random.shuffle(order)
    rows = [index.rows(i) for i in order]
    shuffled = index_of([(index.boxes[r], index.labels[r], index.ignored[r]) for r in rows])
    one = analyze_detections(index, detections)
    other = analyze_detections(shuffled, {n: detections[i] for n, i in enumerate(order)})
    curves, counts = ("precision", "recall", "f1"), ("box_counts", "confusion", "detection_counts", "missed")
    for name in (*curves, *counts, "threshold", "class_thresholds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [e.count for e in one.worst.values()] == [e.count for e in other.worst.values()]


def scene_of(truth: list[tuple], detections: list[tuple]) -> tuple[LabelIndex, dict[int, Detections]]:
    """Truth: box, label, ignored; detections: box, label, score."""
    boxes, labels, ignored = ([row[k] for row in truth] for k in range(3))
    index = index_of([(np.array(boxes, float).reshape(-1, 4), np.array(labels), np.array(ignored, bool))])
    boxes, labels, scores = ([row[k] for row in detections] for k in range(3))
    valid = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )
    return index, {0: valid}


A, B = (10, 10, 60, 60), (100, 100, 160, 160)


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((A, 1), DUPLICATE),
        ((A, 2), WRONG_CLASS),
        (((35, 10, 85, 60), 1), POOR_LOCALIZATION),  # IoU 1/3
        (((35, 10, 85, 60), 2), BACKGROUND),
        (((55, 10, 105, 60), 1), BACKGROUND),  # IoU 1/19
        (((200, 200, 220, 220), 1), BACKGROUND),
        ((B, 3), IGNORED),
        ((B, 2), BACKGROUND),
    ],
)
def test_kinds_of_errors(detection: tuple, kind: int) -> None:
    """Beside a correct detection of the first box, in a scene whose best threshold leaves nothing out."""
    index, detections = scene_of([(A, 1, False), (B, 3, True)], [(A, 1, 0.9), (*detection, 0.9)])
    analysis = analyze_detections(index, detections)
    expected = np.zeros(6, int)
    expected[[CORRECT, kind]] = 1
    np.testing.assert_array_equal(analysis.detection_counts.sum(0), expected)
    assert analysis.missed.sum() == 0
    errors = [image.count for image in analysis.worst.values()]
    assert errors == ([] if kind == IGNORED else [1])


def test_a_box_that_is_found_as_another_class_is_confused_and_missed() -> None:
    index, detections = scene_of([(A, 1, False), (B, 2, False)], [(B, 2, 0.9), (A, 2, 0.9)])
    analysis = analyze_detections(index, detections)
    assert analysis.confusion[1, 2] == analysis.confusion[2, 2] == 1
    assert analysis.confusion.sum() == 2
    assert (analysis.missed == [1, 0, 0]).all()
    errors = analysis.worst[0]
    assert (errors.missed == [True, False]).all()
    assert (errors.kinds == [CORRECT, WRONG_CLASS]).all()
    np.testing.assert_array_equal(errors.detections.boxes, np.array([B, A], np.float32))


def test_what_is_found_on_ignored_boxes_is_in_no_curve() -> None:
    analysis = analyze_detections(*scene_of([(A, 1, False), (B, 1, True)], [(B, 1, 0.95), (B, 1, 0.92), (A, 1, 0.9)]))
    assert analysis.precision[0, 0] == analysis.recall[0, 0] == analysis.f1[0, 0] == 1
    assert np.isnan(analysis.precision[0, 940])


def test_the_best_threshold_is_the_middle_of_the_best_span() -> None:
    index, detections = scene_of([(A, 1, False)], [(A, 1, 0.8), (B, 1, 0.2)])
    analysis = analyze_detections(index, detections)
    assert 0.2 < analysis.threshold == pytest.approx(0.5, abs=0.001)
    assert analysis.class_thresholds[0] == analysis.threshold
    assert np.isnan(analysis.class_thresholds[1:]).all()
    assert analysis.f1[0, 0] == pytest.approx(2 / 3)
    assert analysis.precision[0, 500] == analysis.recall[0, 500] == 1
    assert np.isnan(analysis.precision[0, 900])


def test_a_score_equal_to_the_threshold_counts() -> None:
    for score in (0.1, 0.3, 0.7, 1.0):  # float32(0.7) is below 0.7
        analysis = analyze_detections(*scene_of([(A, 1, False)], [(A, 1, score)]))
        assert analysis.recall[0, round(1000 * score)] == 1
        assert analysis.recall[0, round(1000 * score) + 1 :].sum() == 0


def test_sizes_of_objects() -> None:
    small = (0, 0, 20, 20)
    analysis = analyze_detections(*scene_of([(small, 1, False), (A, 1, False)], [(A, 1, 0.9)]))
    np.testing.assert_array_equal(analysis.box_counts_by_size, [1, 1, 0])
    np.testing.assert_allclose(analysis.precision_by_size.mean(1), [0, 1, np.nan])


def test_the_best_comes_first_whatever_the_order() -> None:
    truth = [(A, 1, False)]
    one = analyze_detections(*scene_of(truth, [(A, 1, 0.9), (A, 1, 0.4)]))
    other = analyze_detections(*scene_of(truth, [(A, 1, 0.4), (A, 1, 0.9)]))
    np.testing.assert_array_equal(one.f1, other.f1)


def check_nothing(analysis: DetectionAnalysis) -> None:
    assert analysis.threshold == 0.5
    assert np.isnan(analysis.f1).all()
    assert analysis.as_dict()["at_best_threshold"] == {"precision": None, "recall": None, "f1": None}


def test_where_there_is_nothing() -> None:
    empty = index_of([(np.empty((0, 4)), np.empty(0), np.empty(0))])
    check_nothing(analyze_detections(empty, {0: NOTHING}))
    check_nothing(analyze_detections(one_box(ignored=True), {0: NOTHING}))
    false = analyze_detections(empty, detections_of(A))
    check_nothing(false)
    assert false.confusion[0, 1] == false.detection_counts[0, BACKGROUND] == 1
    missed = analyze_detections(one_box(), {0: NOTHING})
    assert missed.confusion[1, 0] == missed.missed[0] == 1
    assert missed.threshold == 0.5  # every threshold is as good


def test_an_image_without_an_entry_does_not_count() -> None:
    analysis = analyze_detections(one_box(), {})
    assert analysis.box_counts.sum() == analysis.confusion.sum() == 0


def test_one_class_alone() -> None:
    index = replace(one_box(), classes=("__background__", "only"))
    assert analyze_detections(index, detections_of(A)).as_dict()["at_best_threshold"] == {
        "precision": 1,
        "recall": 1,
        "f1": 1,
    }


def test_thresholds_are_thousandths() -> None:
    assert [f"{t:g}" for t in THRESHOLDS[[0, 1, 825, 1000]]] == ["0", "0.001", "0.825", "1"]
    assert THRESHOLDS[825] == 0.825
