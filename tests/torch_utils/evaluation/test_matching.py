import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scenes import index_of, random_scene
from torch_utils.evaluation import matching
from torch_utils.evaluation.matching import Pairs, flatten, greedy_match, overlaps, ranks
from utils.detect.detections import Detections


@given(st.lists(st.integers(-3, 3), max_size=30))
def test_ranks_count_within_groups(groups: list[int]) -> None:
    expected = [groups[:i].count(group) for i, group in enumerate(groups)]
    assert ranks(np.array(groups, np.int64)).tolist() == expected


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_overlaps_are_those_of_a_double_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_BLOCK", block)
    found, truth = flatten(*random_scene(11, 8))
    pairs = overlaps(found, truth, found.images, truth.images, min_iou=0.1)
    expected = {}
    for i in range(len(found.labels)):
        for j in np.flatnonzero(truth.images == found.images[i]):
            a, b = found.boxes[i], truth.boxes[j]
            sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
            common = max(sides[0], 0) * max(sides[1], 0)
            area = a[2] * a[3]
            iou = common / (area if truth.ignored[j] else area + b[2] * b[3] - common)
            if iou >= 0.1:
                expected[i, int(j)] = iou
    assert len(expected) > 20
    assert list(zip(pairs.detections.tolist(), pairs.truth.tolist(), strict=True)) == sorted(expected)
    np.testing.assert_array_equal(pairs.ious, [expected[key] for key in sorted(expected)])


def test_flat_arrays() -> None:
    index = index_of([(np.array([[0, 0, 9, 9]]), np.array([k]), np.array([k == 2])) for k in (1, 2, 3)])
    boxes = np.array([[1, 2, 4, 8], [0, 0, 1, 1], [5, 5, 6, 6]], np.float32)
    valid = Detections(boxes, np.array([0.2, 0.9, 0.9], np.float32), np.array([1, 2, 4]))  # there is no class 4
    found, truth = flatten(index, {2: valid, 1: valid.where(np.zeros(3, bool))})
    assert found.images.tolist() == [2, 2]
    assert found.labels.tolist() == [2, 1]  # the best first
    assert found.boxes[1].tolist() == [1, 2, 3, 6]
    assert truth.images.tolist() == [1, 2]
    assert truth.ignored.tolist() == [True, False]


def match(rows: list[tuple[int, int, float]], aside: list[bool], shared: list[bool], found: int) -> list[int]:
    """Which box each detection of one group takes at IoU 0.5; rows: detection, box, IoU."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    chosen, taken = greedy_match(
        Pairs(*columns), np.zeros(found, int), np.array([0.5]), np.array(aside)[:, None], np.array(shared)
    )
    result = np.full(found, -1)
    result[chosen] = taken[:, 0]
    return result.tolist()


@pytest.mark.parametrize(
    ("rows", "aside", "shared", "expected"),
    [
        ([(0, 0, 0.6), (0, 1, 0.8)], [False, False], [False, False], [1]),  # the larger overlap
        ([(0, 0, 0.7), (0, 1, 0.7)], [False, False], [False, False], [1]),  # of two alike the later
        ([(0, 0, 0.6), (0, 1, 0.9)], [False, True], [False, True], [0]),  # one set aside only as the last choice
        ([(0, 1, 0.8), (1, 0, 0.6), (1, 1, 0.9)], [False, False], [False, False], [1, 0]),  # taken: the next best
        ([(0, 0, 0.8), (1, 0, 0.9)], [False], [False], [0, -1]),  # who comes first has it
        ([(0, 0, 0.8), (1, 0, 0.9)], [True], [True], [0, 0]),  # a crowd has room for more
        ([(0, 0, 0.8), (1, 0, 0.9)], [True], [False], [0, -1]),  # a box of another size has not
        ([(0, 0, 0.4), (1, 0, 0.5)], [False], [False], [-1, 0]),  # 0.5 is enough
    ],
)
def test_greedy(rows, aside, shared, expected) -> None:
    assert match(rows, aside, shared, len(expected)) == expected


def test_no_pairs() -> None:
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    matched, matches = greedy_match(
        nothing, np.empty(0, np.int64), np.array([0.5]), np.empty((0, 1), bool), np.empty(0, bool)
    )
    assert matched.shape == (0,)
    assert matches.shape == (0, 1)
