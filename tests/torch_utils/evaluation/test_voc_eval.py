"""Pascal VOC's AP against the development kit's procedure written out, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.support.scenes import SCENE_CLASSES, detections_of, index_of, one_box, random_scene
from torch_utils.evaluation.voc_eval import voc_metrics
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex


def procedure(index: LabelIndex, detections: dict[int, Detections], label: int, year: int) -> float:
    """One detection after another, as VOCevaldet and VOCap go."""
    truth = {i: np.flatnonzero(index.labels[index.rows(i)] == label) + index.offsets[i] for i in detections}
    boxes = sum(int((~index.ignored[rows]).sum()) for rows in truth.values())
    if boxes == 0:
        return float("nan")
    queue = [
        (float(score), i, box.astype(float))
        for i, d in sorted(detections.items())
        for box, score, kind in zip(d.boxes, d.scores, d.labels, strict=True)
        if kind == label
    ]
    queue.sort(key=lambda entry: -entry[0])
    detected, right, false = set(), [], []
    for _, i, box in queue:
        best, best_row = -1.0, -1
        for row in truth[i]:
            other = index.boxes[row].astype(float)
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if width > 0 and height > 0:
                areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
                overlap = width * height / (areas - width * height)
                if overlap > best:
                    best, best_row = overlap, row
        if best >= 0.5 and index.ignored[best_row]:
            continue
        is_right = best >= 0.5 and best_row not in detected
        detected |= {best_row} if is_right else set()
        right.append(is_right)
        false.append(not is_right)
    hits, misses = np.cumsum(right), np.cumsum(false)
    recall, precision = hits / boxes, hits / np.maximum(hits + misses, 1)
    if year == 2007:
        points = [max(precision[recall >= t / 10], default=0) for t in range(11)]
        return sum(points) / 11
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return sum((recall[k] - recall[k - 1]) * precision[k] for k in range(1, len(recall)))


@examples(40)
@given(st.integers(0, 10_000), st.integers(1, 10), st.sampled_from([2007, 2012]))
def test_it_is_the_development_kits_procedure(seed: int, images: int, year: int) -> None:
    index, detections = random_scene(seed, images)
    ours = voc_metrics(index, detections, year)
    expected = [procedure(index, detections, label, year) for label in range(1, len(SCENE_CLASSES))]
    np.testing.assert_allclose(list(ours.ap.values()), expected, atol=1e-12)
    np.testing.assert_allclose(ours.mean, np.nanmean(expected) if not np.isnan(expected).all() else np.nan)


@pytest.mark.parametrize(("year", "expected"), [(2007, (6 * 1 + 5 * 2 / 3) / 11), (2012, 0.5 + 0.5 * 2 / 3)])
def test_right_false_right_of_two_boxes(year: int, expected: float) -> None:
    boxes = np.array([[10, 10, 60, 60], [100, 100, 160, 160]])
    index = index_of([(boxes, np.array([1, 1]), np.zeros(2, bool))])
    valid = detections_of((10, 10, 60, 60), (200, 200, 240, 240), (100, 100, 160, 160))
    assert voc_metrics(index, valid, year).ap["a"] == pytest.approx(expected)


def test_difficult_boxes_are_neither_missed_nor_false() -> None:
    boxes = np.array([[10, 10, 60, 60], [100, 100, 160, 160]])
    index = index_of([(boxes, np.array([1, 1]), np.array([False, True]))])
    for valid in (
        detections_of((10, 10, 60, 60)),
        detections_of((100, 100, 160, 160), (100, 100, 160, 160), (10, 10, 60, 60)),
    ):
        assert voc_metrics(index, valid, 2012).ap["a"] == 1


def test_a_part_of_a_difficult_box_is_false() -> None:
    """Unlike COCO's crowds: inside of it is not enough."""
    boxes = np.array([[10, 10, 60, 60], [100, 100, 200, 200]])
    index = index_of([(boxes, np.array([1, 1]), np.array([False, True]))])
    assert voc_metrics(index, detections_of((100, 100, 120, 120), (10, 10, 60, 60)), 2012).ap["a"] == 0.5


def test_a_detection_belongs_to_the_box_that_it_overlaps_most() -> None:
    """IoU 1 with the one, 0.7 with a difficult one."""
    boxes, valid = np.array([[0, 0, 100, 100], [0, 0, 100, 70]]), detections_of((0, 0, 100, 100))
    for difficult, expected in ((1, 1), (0, 0)):
        index = index_of([(boxes, np.array([1, 1]), np.arange(2) == difficult)])
        assert voc_metrics(index, valid, 2012).ap["a"] == expected


def test_plain_values() -> None:
    assert voc_metrics(one_box(), detections_of((10, 10, 60, 60)), 2007).as_dict() == {
        "year": 2007, "mean": 1.0, "classes": {"a": 1.0, "b": None, "c": None},
    }  # fmt: skip
    assert voc_metrics(one_box(), {}, 2012).as_dict()["mean"] is None
    lines = voc_metrics(one_box(), detections_of((10, 10, 60, 60)), 2007).lines()
    assert lines[:2] == ["VOC 2007 mAP, IoU 0.50: 1.0000", "  a  1.0000"]
