import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import ROOT
from utils.pixel_rows import mirrored, stretched

SIDES = st.integers(1, 80)
SEEDS = st.integers(0, 2**32 - 1)
TO_THE_BIT = platform.machine() in ("x86_64", "AMD64")


def noise(height: int, width: int, seed: int, *, read_only: bool = False, part: bool = False) -> np.ndarray:
    """Pixels in memory of their own, or a part of a larger image."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width + 2 * part, 3), np.uint8)
    image = image[:, part : part + width]
    image.flags.writeable = not read_only
    return image


@given(SIDES, SIDES, SIDES, SEEDS, st.booleans(), st.booleans())
@example(2, 3, 30252, 0, False, False)  # weights must be float32, as OpenCV's are: seen from 8192 rows on
@example(80, 7, 40, 0, False, False)
def test_a_stretched_image_has_opencvs_pixels(
    old: int, width: int, new: int, seed: int, read_only: bool, part: bool
) -> None:
    image = noise(old, width, seed, read_only=read_only, part=part)
    before = image.copy()
    expected = cv2.resize(image, (width, new), interpolation=cv2.INTER_LINEAR).reshape(new, width, 3)
    difference = np.abs(stretched(image, new).astype(int) - expected)
    assert difference.max() <= (0 if TO_THE_BIT else 1)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_image_of_one_value_keeps_it(value: int) -> None:
    for height in range(1, 60):
        assert (stretched(np.full((7, 5, 3), value, np.uint8), height) == value).all()


@given(SIDES, SIDES, SEEDS, st.booleans(), st.booleans())
def test_a_mirror_image_is_made_in_place_where_nobody_else_sees_it(
    height: int, width: int, seed: int, read_only: bool, part: bool
) -> None:
    image = noise(height, width, seed, read_only=read_only, part=part)
    before = image.copy()
    made = mirrored(image)
    np.testing.assert_array_equal(made, before[:, ::-1])
    if read_only:
        np.testing.assert_array_equal(image, before)
    assert np.shares_memory(made, image) == (not read_only and image.flags.c_contiguous)


def fresh(cache: Path) -> None:
    """A process of its own that uses both, with machine code kept in `cache`."""
    code = """
import numpy as np
from utils.pixel_rows import mirrored, stretched
assert mirrored(stretched(np.ones((2, 2, 3), np.uint8), 5)).all()
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_machine_code_is_kept_and_damaged_files_of_it_do_no_harm(tmp_path: Path) -> None:
    fresh(tmp_path)
    kept = list(tmp_path.rglob("*.nb?"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for path in kept:
        path.write_bytes(path.read_bytes()[:10] if path.suffix == ".nbc" else b"")
    fresh(tmp_path)


def test_it_runs_where_no_folder_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from utils import pixel_rows

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    compiled = pixel_rows._compiled(pixel_rows._mirror.py_func)
    image = noise(4, 5, 0)
    out = np.empty_like(image)
    compiled(image.reshape(4, -1), out.reshape(4, -1))
    np.testing.assert_array_equal(out, image[:, ::-1])
