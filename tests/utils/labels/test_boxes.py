import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.labels.boxes import CLIPPED, DROPPED, NO_AREA, NOT_FINITE, OUTSIDE, SWAPPED, repair_boxes, repeated_boxes

SIZE = (100, 200)  # height, width


def mend(*boxes):
    return repair_boxes(np.array(boxes, float), np.array([SIZE] * len(boxes)))


@pytest.mark.parametrize(
    ("box", "repaired", "problem"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40), ""),
        ((0, 0, 200, 100), (0, 0, 200, 100), ""),
        ((-1, -1, 201, 101), (0, 0, 200, 100), ""),  # a pixel over the border is another convention, not a fault
        ((30, 20, 10, 40), (10, 20, 30, 40), SWAPPED),
        ((30, 40, 10, 20), (10, 20, 30, 40), SWAPPED),
        ((-50, 20, 30, 40), (0, 20, 30, 40), CLIPPED),
        ((10, 20, 300, 400), (10, 20, 200, 100), CLIPPED),
        ((199, 99, 200, 100), (199, 99, 200, 100), ""),  # one pixel in the corner
        ((10, 20, 10, 40), None, NO_AREA),
        ((10, 20, 10, 20), None, NO_AREA),
        ((-60, 20, -10, 40), None, OUTSIDE),
        ((250, 20, 300, 40), None, OUTSIDE),
        ((200, 20, 201, 40), None, OUTSIDE),
        ((float("nan"), 20, 30, 40), None, NOT_FINITE),
        ((10, 20, float("inf"), 40), None, NOT_FINITE),
    ],
)
def test_each_kind_of_box(box, repaired, problem) -> None:
    boxes, keep, problems = mend(box)
    assert problems[0] == problem
    assert keep[0] == (repaired is not None) == (problem not in DROPPED)
    if repaired is not None:
        assert boxes[0].tolist() == list(repaired)


def test_float_boxes_keep_their_fractions() -> None:
    """Fault of the predecessor: boxes were cut to whole pixels."""
    assert mend((10.25, 20.5, 30.75, 40.125))[0].tolist() == [[10.25, 20.5, 30.75, 40.125]]


def test_no_boxes() -> None:
    boxes, keep, problems = repair_boxes(np.empty((0, 4)), np.empty((0, 2)))
    assert boxes.shape == (0, 4)
    assert len(keep) == len(problems) == 0


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=32)] * 4), max_size=20))
def test_what_is_kept_is_a_box_inside_the_image(rows) -> None:
    boxes, keep, problems = repair_boxes(np.array(rows).reshape(-1, 4), np.array([SIZE] * len(rows)).reshape(-1, 2))
    kept = boxes[keep]
    assert boxes.dtype == np.float32
    assert np.isfinite(boxes).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert (kept >= 0).all()
    assert (kept[:, 2:] <= [SIZE[1], SIZE[0]]).all()
    assert all((problem in DROPPED) != kept_one for problem, kept_one in zip(problems, keep, strict=True))


@given(st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_a_good_box_is_left_alone(fractions) -> None:
    x1, x2 = sorted((fractions[0] * 199, fractions[1] * 199))
    y1, y2 = sorted((fractions[2] * 99, fractions[3] * 99))
    box = np.array([[x1, y1, x2 + 1, y2 + 1]], np.float32)
    boxes, keep, problems = repair_boxes(box, np.array([SIZE]))
    assert keep[0]
    assert problems[0] == ""
    assert (boxes == box).all()


def test_repeated_boxes() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 5, 9, 9], [0.4, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0.6, 9, 9.0]])
    images, labels = np.array([0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 2, 1, 1])
    assert repeated_boxes(images, labels, boxes).tolist() == [-1, -1, 0, -1, -1, -1]
    assert repeated_boxes(images[:0], labels[:0], boxes[:0]).tolist() == []
