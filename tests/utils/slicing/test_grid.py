"""Slices of an image: SAHI's grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.slicing.grid import Slices

SIDES = st.integers(1, 700)
OVERLAPS = st.floats(0, 0.95)
GRIDS = st.builds(Slices, st.integers(1, 400), st.integers(1, 400), OVERLAPS, OVERLAPS)


@given(st.integers(1, 130), st.integers(1, 130), st.builds(Slices, *[st.integers(5, 90)] * 2, *[OVERLAPS] * 2))
def test_the_windows_are_sahis(height: int, width: int, slices: Slices) -> None:
    from sahi.slicing import get_slice_bboxes

    theirs = get_slice_bboxes(
        height,
        width,
        slice_height=slices.height,
        slice_width=slices.width,
        overlap_height_ratio=slices.overlap_height,
        overlap_width_ratio=slices.overlap_width,
    )
    assert slices.windows(height, width).tolist() == theirs


@given(SIDES, SIDES, st.builds(Slices, *[st.integers(40, 400)] * 2, *[st.floats(0, 0.8)] * 2))
def test_the_windows_cover_the_image_and_stay_inside(height: int, width: int, slices: Slices) -> None:
    windows = slices.windows(height, width)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in windows:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (bottom - top, right - left) == (min(height, slices.height), min(width, slices.width))
        seen[top:bottom, left:right] = True
    assert seen.all()
    assert len(np.unique(windows, axis=0)) == len(windows)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(UserError, match=r"has 1,000,000 slices of 1 x 1 px \(limit 20,000\): raise --slice-width"):
        Slices(1, 1).windows(1000, 1000)


def test_a_grid_in_words() -> None:
    assert str(Slices(256, 512, 0.2, 0.1)) == "512 x 256 px, overlapping by 0.2 of the height and 0.1 of the width"
