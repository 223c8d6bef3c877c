"""Boxes of windows become boxes of objects: equal to SAHI's postprocessing, run beside it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.detect.detections import Detections
from utils.slicing import merging as merging_module
from utils.slicing.merging import Merging, merge

KINDS = ("GREEDYNMM", "NMM", "NMS")
METRICS = ("IOS", "IOU")
MERGINGS = st.builds(
    Merging, st.sampled_from(KINDS), st.sampled_from(METRICS), st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]), st.booleans()
)


def sahis(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, merging: Merging) -> Detections:
    """Merge them with sahi, on its numpy backend, whatever the machine has."""
    from sahi.postprocess.backends import set_postprocess_backend
    from sahi.predict import POSTPROCESS_NAME_TO_CLASS
    from sahi.prediction import ObjectPrediction

    set_postprocess_backend("numpy")
    predictions = [
        ObjectPrediction(bbox=box, category_id=label, score=score)
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores, strict=True)
    ]
    work = POSTPROCESS_NAME_TO_CLASS[merging.kind](merging.threshold, merging.metric, merging.class_agnostic)
    left = work(predictions) if len(predictions) > 1 else predictions
    return Detections(
        np.array([p.bbox.to_xyxy() for p in left], np.float32).reshape(-1, 4),
        np.array([p.score.value for p in left], np.float32),
        np.array([p.category.id for p in left], np.int64),
    )


def rows(detections: Detections) -> list[tuple[float, ...]]:
    """In an order that does not depend on how equals are ordered."""
    return sorted(
        zip(detections.scores.tolist(), detections.labels.tolist(), map(tuple, detections.boxes.tolist()), strict=True)
    )


def some_boxes(count: int, seed: int, *, grid: bool, spread: float = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With `grid` on whole pixels, with few scores and many copies, so that equals meet."""
    rng = np.random.default_rng(seed)
    corners, sides = rng.random((count, 2)) * spread, rng.random((count, 2)) * 60
    boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32).astype(float)
    boxes += rng.integers(0, 5000, 4)[[0, 1, 0, 1]]  # as the shift of a window: no longer float32
    scores = rng.random(count).astype(np.float32)
    if grid:
        boxes, scores = np.round(boxes / 8) * 8, np.round(scores * 4).astype(np.float32) / 4
    return boxes, scores, rng.integers(1, 4, count)


@given(st.integers(0, 70), st.integers(0, 10**6), st.booleans(), MERGINGS)
def test_equal_to_sahi(count: int, seed: int, grid: bool, merging: Merging) -> None:
    boxes = some_boxes(count, seed, grid=grid)
    ours = merge(*boxes, merging)
    assert rows(ours) == rows(sahis(*boxes, merging))
    assert (np.diff(ours.scores) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_equal_to_sahi_where_it_takes_its_sparse_path(kind: str, metric: str) -> None:
    """From 2,000 boxes on; in small blocks here, which must not be seen."""
    boxes = some_boxes(2500, 3, grid=False, spread=2000)
    expected = rows(sahis(*boxes, Merging(kind, metric, class_agnostic=True)))
    assert rows(merge(*boxes, Merging(kind, metric, class_agnostic=True))) == expected


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = some_boxes(300, 4, grid=True)
    whole = rows(merge(*boxes, Merging()))
    for block in (1, 7, 1000):
        monkeypatch.setattr(merging_module, "_BLOCK", block)
        assert rows(merge(*boxes, Merging())) == whole


def test_an_object_cut_by_two_windows_becomes_one_and_nms_keeps_half_of_it() -> None:
    halves = np.array([[0, 0, 60, 20], [40, 0, 100, 20]], float), np.float32([0.6, 0.9]), np.array([1, 1])
    whole = merge(*halves, Merging(threshold=0.3))
    assert whole.boxes.tolist() == [[0, 0, 100, 20]]
    assert whole.scores.tolist() == [np.float32(0.9)]
    assert merge(*halves, Merging("NMS", threshold=0.3)).boxes.tolist() == [[40, 0, 100, 20]]


def test_classes_stay_apart_unless_told_otherwise() -> None:
    both = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], float), np.float32([0.6, 0.9]), np.array([1, 2])
    assert sorted(merge(*both, Merging()).labels.tolist()) == [1, 2]
    assert merge(*both, Merging(class_agnostic=True)).labels.tolist() == [2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_what_may_not_unite_leaves_better_boxes_alone(kind: str, metric: str) -> None:
    boxes, scores, labels = some_boxes(300, 1, grid=False, spread=100)
    good, merging = scores >= 0.5, Merging(kind, metric, 0.3)
    alone = merge(boxes[good], scores[good], labels[good], merging)
    beside = merge(boxes, scores, labels, merging, may_enlarge=good)
    assert 10 < len(alone) < len(beside)
    assert rows(beside.filtered(0.5)) == rows(alone)
    if kind != "NMS":
        assert rows(merge(boxes, scores, labels, merging).filtered(0.5)) != rows(alone)


def test_in_words() -> None:
    assert str(Merging()) == "GREEDYNMM of boxes of a class with IOS of at least 0.5"
    assert "boxes of all classes" in str(Merging(class_agnostic=True))
