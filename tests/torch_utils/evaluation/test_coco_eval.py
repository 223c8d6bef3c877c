"""The claim "equal to pycocotools" is this suite, which runs both."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.evaluation import TOLERANCE, generate, pycocotools_numbers
from tests.conftest import examples
from tests.support.scenes import NOTHING, SCENE_CLASSES, detections_of, index_of, one_box, random_scene
from torch_utils.evaluation.coco_eval import coco_metrics
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex


def pycocotools_stats(index: LabelIndex, detections: dict[int, Detections]) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers, and (classes, 3) AP, AP50 and AR of each class."""
    annotations = []
    for i in range(len(index)):
        rows = index.rows(i)
        for box, label, ignored in zip(
            index.boxes[rows].astype(float), index.labels[rows], index.ignored[rows], strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": i, "category_id": int(label), "iscrowd": int(ignored),
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                }
            )  # fmt: skip
    results = [
        {"image_id": i, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
        for i, found in sorted(detections.items())
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.astype(float).tolist(), found.scores, found.labels, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(index))],
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(SCENE_CLASSES) if k],
            "info": {},
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision, recall = evaluator.eval["precision"][:, :, :, 0, -1], evaluator.eval["recall"][:, :, 0, -1]
    per_class = [
        [v[v > -1].mean() if (v > -1).any() else np.nan for v in (precision[:, :, k], precision[0, :, k], recall[:, k])]
        for k in range(precision.shape[2])
    ]
    return evaluator.stats, np.array(per_class)


@examples(30)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_numbers_are_pycocotools_to_the_last_digit(seed: int, images: int) -> None:
    index, detections = random_scene(seed, images)
    if not any(len(d) for d in detections.values()):
        return  # pycocotools takes no empty result
    ours = coco_metrics(index, {i: detections.get(i, NOTHING) for i in range(len(index))})
    stats, per_class = pycocotools_stats(index, detections)
    np.testing.assert_allclose(ours.stats, stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose([(c.ap, c.ap50, c.ar) for c in ours.per_class], per_class, rtol=0, atol=1e-12)


def check_against_pycocotools(index: LabelIndex, detections: dict[int, Detections]) -> None:
    ours = coco_metrics(index, detections)
    stats, per_class = pycocotools_stats(index, detections)
    np.testing.assert_allclose(ours.stats, stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose([(c.ap, c.ap50, c.ar) for c in ours.per_class], per_class, rtol=0, atol=1e-12)


def test_hard_cases_are_pycocotools_too() -> None:
    """Ties of scores and of overlaps, doubles, several detections on a crowd, sizes on the edge between two areas."""
    a, b, right = [0, 0, 32, 32], [16, 0, 48, 32], [8, 0, 40, 32]
    edge, crowd = [100, 100, 196, 196], [0, 200, 100, 300]
    truth = index_of([
        (np.array([a, b, edge, crowd]), np.array([1, 1, 1, 1]), np.array([False, False, False, True])),
        (np.empty((0, 4)), np.empty(0), np.empty(0)),
        (np.array([a, a, crowd, crowd]), np.array([1, 2, 1, 3]), np.array([True, False, False, True])),
    ])  # fmt: skip
    boxes = np.array([right, right, a, edge, [10, 210, 40, 240], [50, 210, 90, 240], crowd], np.float32)
    for scores in ([0.5] * 7, [0.9, 0.9, 0.8, 0.8, 0.8, 0.1, 0.1]):
        same = Detections(boxes, np.array(scores, np.float32), np.ones(7, int))
        mixed = Detections(boxes, np.array(scores, np.float32), np.array([1, 2, 2, 1, 3, 3, 1]))
        check_against_pycocotools(truth, {0: same, 1: same, 2: mixed})


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_pycocotools_does() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 250, (160, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 40, (160, 2))], 1).astype(np.float32)
    truth = index_of([(boxes[20:160:2], np.ones(70, int), np.zeros(70, bool))])
    scores = np.sort(rng.random(160).astype(np.float32))[::-1]
    check_against_pycocotools(truth, {0: Detections(boxes, scores, np.ones(160, int))})


def test_what_is_cut_is_not_false() -> None:
    """The 101st detection of one image scores higher than the right one of another."""
    box, label, seen = np.array([[10, 10, 60, 60]]), np.array([1]), np.array([False])
    many = Detections(
        np.tile(np.array([[200, 200, 250, 250]], np.float32), (130, 1)),
        np.linspace(0.99, 0.5, 130, dtype=np.float32),
        np.ones(130, int),
    )
    truth = index_of([(np.empty((0, 4)), np.empty(0), np.empty(0)), (box, label, seen)])
    detections = {0: many, 1: Detections(box.astype(np.float32), np.array([0.3], np.float32), label)}
    check_against_pycocotools(truth, detections)
    assert coco_metrics(truth, detections).ap == pytest.approx(1 / 101)


def test_labels_that_no_class_has_do_not_count() -> None:
    expected = coco_metrics(one_box(), detections_of((10, 10, 60, 60))).stats
    both = Detections(
        np.array([[10, 10, 60, 60]] * 3, np.float32), np.array([0.99, 0.98, 0.9], np.float32), np.array([0, 9, 1])
    )
    assert coco_metrics(one_box(), {0: both}).stats == expected


def test_perfect_and_useless() -> None:
    assert coco_metrics(one_box(), detections_of((10, 10, 60, 60))).ap == pytest.approx(1)
    assert coco_metrics(one_box(), detections_of((100, 100, 160, 160))).ap == 0
    assert coco_metrics(one_box(), detections_of((10, 10, 60, 60), label=2)).ap == 0


def test_no_detection_at_all() -> None:
    metrics = coco_metrics(one_box(), {0: NOTHING})
    assert metrics.ap == 0
    assert metrics.stats[5] == -1  # there is no large box to find
    assert [c.boxes for c in metrics.per_class] == [1, 0, 0]


def test_an_image_that_is_absent_does_not_count() -> None:
    box, label, seen = np.array([[10.0, 10, 60, 60]]), np.array([1]), np.array([False])
    truth = index_of([(box, label, seen), (box, label, seen)])
    metrics = coco_metrics(truth, detections_of((10, 10, 60, 60)))
    assert metrics.ap == pytest.approx(1)
    assert metrics.per_class[0].boxes == 1
    assert coco_metrics(truth, {**detections_of((10, 10, 60, 60)), 1: NOTHING}).ap == pytest.approx(0.5, abs=0.01)


def test_no_ground_truth_at_all() -> None:
    assert coco_metrics(index_of([(np.empty((0, 4)), np.empty(0), np.empty(0))]), detections_of((1, 1, 9, 9))).ap == -1


def test_difficult_boxes_are_neither_missed_nor_false() -> None:
    """Fault of the predecessor: `difficult` was ignored itself."""
    truth = index_of([
        (np.array([[10, 10, 60, 60], [100, 100, 160, 160]]), np.array([1, 1]), np.array([False, True]))
    ])  # fmt: skip
    assert coco_metrics(truth, detections_of((10, 10, 60, 60))).ap == pytest.approx(1)
    assert coco_metrics(truth, detections_of((100, 100, 160, 160), (10, 10, 60, 60))).ap == pytest.approx(1)


def test_fractions_of_pixels_count() -> None:
    """Fault of the predecessor: ground truth of the metric was cut to whole pixels."""
    truth = index_of([(np.array([[10.5, 10.5, 12.5, 12.5]]), np.array([1]), np.array([False]))])
    assert coco_metrics(truth, detections_of((10.5, 10.5, 12.5, 12.5))).ap == pytest.approx(1)
    assert coco_metrics(truth, detections_of((10, 10, 12, 12))).ap50 == 0  # IoU 0.39


def test_tables() -> None:
    metrics = coco_metrics(one_box(), detections_of((10, 10, 60, 60)))
    lines = metrics.table().splitlines()
    assert len(lines) == 12
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    assert lines[3] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = -1.000"
    assert lines[6] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 1.000"
    assert "a      " in metrics.class_table()
    assert metrics.as_dict()["classes"][1] == {"name": "b", "boxes": 0, "ap": None, "ap50": None, "ar": None}


def test_the_benchmark_compares_the_same_numbers() -> None:
    index, detections = generate(images=20, detections_per_image=30, classes=5, seed=1)
    ours = coco_metrics(index, detections)
    stats, per_class = pycocotools_numbers(index, detections)
    assert ours.ap50 > 0.1  # it is no comparison of zeros
    np.testing.assert_allclose(ours.stats, stats, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose([(c.ap, c.ap50) for c in ours.per_class], per_class, rtol=0, atol=TOLERANCE)
