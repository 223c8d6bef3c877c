from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from utils import pixel_rows
from utils.pixel_rows import blend_rows, mirror_rows

SIDES = st.integers(1, 80)
SEEDS = st.integers(0, 2**32 - 1)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(SIDES, SIDES, SIDES, SEEDS)
@example(3, 80, 4, 0)
@example(80, 7, 40, 0)
def test_blended_rows_are_opencvs(old: int, width: int, new: int, seed: int) -> None:
    image = noise(old, width, seed)
    out = np.empty((new, width, 3), np.uint8)
    image.flags.writeable = False
    blend_rows(image.reshape(old, -1), out.reshape(new, -1))
    np.testing.assert_array_equal(
        out, cv2.resize(image, (width, new), interpolation=cv2.INTER_LINEAR).reshape(out.shape)
    )


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_blended_rows_of_one_value_keep_it(value: int) -> None:
    for new in range(1, 60):
        out = np.empty((new, 40), np.uint8)
        blend_rows(np.full((7, 40), value, np.uint8), out)
        assert (out == value).all()


@given(SIDES, SIDES, SEEDS)
def test_mirrored_rows_in_other_memory_and_in_their_own(height: int, width: int, seed: int) -> None:
    image = noise(height, width, seed)
    expected, out = image[:, ::-1].copy(), np.empty_like(image)
    mirror_rows(image.reshape(height, -1), out.reshape(height, -1))
    np.testing.assert_array_equal(out, expected)
    mirror_rows(image.reshape(height, -1), image.reshape(height, -1))
    np.testing.assert_array_equal(image, expected)


def test_where_machine_code_cannot_be_kept_it_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def njit(signature: object, *, cache: bool = False, **options: object) -> Callable[[object], object]:
        tried.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'loop': no locator available for file 'pixel_rows.py'")
        return lambda loop: loop

    monkeypatch.setattr(pixel_rows, "njit", njit)
    assert pixel_rows._compiled(print) is print
    assert tried == [True, False]
