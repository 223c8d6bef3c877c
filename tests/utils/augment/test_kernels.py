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
from utils.augment.kernels import Box, flip_horizontal, load_loops, resize_height, resize_into, transform_boxes
from utils.labels.boxes import MIN_SIDE, MIN_VISIBLE

SIDES = st.integers(1, 80)
SEEDS = st.integers(0, 2**32 - 1)
TO_THE_BIT = platform.machine() in ("x86_64", "AMD64")


def noise(height: int, width: int, seed: int, *, read_only: bool = False, part: bool = False) -> np.ndarray:
    """Random pixels in their own memory, or a part of a larger image."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width + 2 * part, 3), np.uint8)
    image = image[:, part : part + width]
    image.flags.writeable = not read_only
    return image


@given(SIDES, SIDES, SIDES, SEEDS, st.booleans(), st.booleans())
@example(2, 3, 30252, 0, False, False)  # weights must be float32, as OpenCV's are: seen from 8192 rows on
@example(80, 7, 40, 0, False, False)
def test_resize_height_has_opencvs_pixels(
    old: int, width: int, new: int, seed: int, read_only: bool, part: bool
) -> None:
    image = noise(old, width, seed, read_only=read_only, part=part)
    before = image.copy()
    expected = cv2.resize(image, (width, new), interpolation=cv2.INTER_LINEAR).reshape(new, width, 3)
    difference = np.abs(resize_height(image, new).astype(int) - expected)
    assert difference.max() <= (0 if TO_THE_BIT else 1)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_image_of_one_value_keeps_it(value: int) -> None:
    for height in range(1, 60):
        assert (resize_height(np.full((7, 5, 3), value, np.uint8), height) == value).all()


@st.composite
def part_of(draw: st.DrawFn, height: int, width: int) -> Box:
    """Left, top, right, bottom, of at least one pixel."""
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))


@given(st.data(), SIDES, SIDES, SIDES, SIDES, SEEDS, st.booleans(), st.booleans())
def test_resize_into_writes_opencvs_pixels_into_the_target_alone(
    data: st.DataObject, height: int, width: int, new: int, wide: int, seed: int, read_only: bool, part: bool
) -> None:
    image, picture = noise(height, width, seed, read_only=read_only, part=part), noise(new, wide, seed + 1)
    left, top, right, bottom = window = data.draw(part_of(height, width))
    x1, y1, x2, y2 = target = data.draw(part_of(new, wide))
    expected, before = picture.copy(), image.copy()
    seen = cv2.resize(image[top:bottom, left:right], (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    expected[y1:y2, x1:x2] = seen
    resize_into(image, window, picture, target)
    difference = np.abs(picture.astype(int) - expected)
    assert difference.max() <= (0 if (bottom - top, right - left) == (y2 - y1, x2 - x1) else 2)
    difference[y1:y2, x1:x2] = 0
    assert not difference.any()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("side", [50, 99, 101, 180, 300])
def test_a_part_is_close_to_the_exact_values(side: int) -> None:
    image, picture = noise(200, 200, side), np.empty((300, 300, 3), np.uint8)
    resize_into(image, (10, 20, 170, 190), picture, (0, 0, side, side))
    exact = cv2.resize(image[20:190, 10:170].astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    difference = picture[:side, :side] - exact
    assert abs(difference.mean()) < 0.1  # OpenCV's with uint8: -0.13
    assert np.abs(difference).mean() < 0.4  # 0.25, if values were only rounded
    assert np.abs(difference).max() <= 1.51


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_part_of_one_value_keeps_it(value: int) -> None:
    image, picture = np.full((7, 5, 3), value, np.uint8), np.empty((40, 30, 3), np.uint8)
    for side in range(1, 30):
        resize_into(image, (0, 0, 5, 7), picture, (0, 0, side, side))
        assert (picture[:side, :side] == value).all()


@given(st.data(), st.lists(st.integers(0, 4), min_size=1, max_size=4), SEEDS)
def test_boxes_go_where_the_pixels_of_a_window_do(data: st.DataObject, counts: list[int], seed: int) -> None:
    windows, targets = ([data.draw(part_of(80, 60)) for _ in counts] for _ in range(2))
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([low := rng.random((sum(counts), 2)) * 60, low + rng.random(low.shape) * 40], 1)
    boxes = boxes.astype(np.float32)
    boxes.flags.writeable = False
    window, target = (np.repeat(np.array(frames, np.float32), counts, axis=0) for frames in (windows, targets))
    scale = (target[:, 2:] - target[:, :2]) / (window[:, 2:] - window[:, :2])
    corners = (boxes.reshape(-1, 2, 2) - window[:, None, :2]) * scale[:, None] + target[:, None, :2]
    whole = (corners[:, 1] - corners[:, 0]).prod(1)
    cut = corners.clip(target[:, None, :2], target[:, None, 2:])
    sides = cut[:, 1] - cut[:, 0]
    expected = (sides.prod(1) >= MIN_VISIBLE * whole) & (sides >= MIN_SIDE).all(1)
    kept, visible = transform_boxes(boxes, windows, targets, counts)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(visible, expected)
    np.testing.assert_array_equal(kept, cut[expected].reshape(-1, 4))


@given(SIDES, SIDES, SEEDS, st.booleans(), st.booleans())
def test_a_mirror_image_is_made_in_place_where_nobody_else_sees_it(
    height: int, width: int, seed: int, read_only: bool, part: bool
) -> None:
    image = noise(height, width, seed, read_only=read_only, part=part)
    before = image.copy()
    made = flip_horizontal(image)
    np.testing.assert_array_equal(made, before[:, ::-1])
    if read_only:
        np.testing.assert_array_equal(image, before)
    assert np.shares_memory(made, image) == (not read_only and image.flags.c_contiguous)


def fresh(cache: Path) -> None:
    """Run all loops in a new process, with machine code kept in `cache`."""
    code = """
import numpy as np
from utils.augment.kernels import flip_horizontal, resize_height, resize_into, transform_boxes
image, picture = np.ones((2, 2, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
resize_into(image, (0, 0, 2, 2), picture, (0, 0, 4, 4))
assert flip_horizontal(resize_height(image, 5)).all() and picture.all()
boxes, visible = transform_boxes(np.float32([[0, 0, 2, 2]]), [(0, 0, 2, 2)], [(0, 0, 4, 4)], [1])
assert boxes.tolist() == [[0, 0, 4, 4]] and visible.all()
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_machine_code_is_kept_and_damaged_files_of_it_do_no_harm(tmp_path: Path) -> None:
    fresh(tmp_path)
    kept = list(tmp_path.rglob("*.nb?"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    code = [path.name.split("-")[0].split(".")[-1] for path in kept if path.suffix == ".nbc"]
    assert sorted(code) == ["flip_horizontal_loop", "resize_height_loop", "resize_into_loop", "transform_boxes_loop"]
    for path in kept:
        path.write_bytes(path.read_bytes()[:10] if path.suffix == ".nbc" else b"")
    fresh(tmp_path)


def test_it_runs_where_no_folder_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from utils.augment import numba_loops

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    arguments = numba_loops._SOURCE, numba_loops._OUT
    compiled = numba_loops._compiled(*arguments)(numba_loops.flip_horizontal_loop.py_func)
    image = noise(4, 5, 0)
    out = np.empty_like(image)
    compiled(image.reshape(4, -1), out.reshape(4, -1))
    np.testing.assert_array_equal(out, image[:, ::-1])


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The fallback of OpenCV and NumPy."""
    monkeypatch.setitem(sys.modules, "utils.augment.numba_loops", None)
    monkeypatch.delattr("utils.augment.numba_loops", raising=False)
    load_loops.cache_clear()
    yield caplog
    load_loops.cache_clear()


def test_without_numba_everything_works_and_one_line_says_so(without_numba: pytest.LogCaptureFixture) -> None:
    image, picture = noise(20, 30, 0), noise(40, 50, 1)
    expected = picture.copy()
    expected[5:25, 10:40] = cv2.resize(image[2:12, 3:18], (30, 20), interpolation=cv2.INTER_LINEAR)
    resize_into(image, (3, 2, 18, 12), picture, (10, 5, 40, 25))
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(resize_height(image, 33), cv2.resize(image, (30, 33)))
    np.testing.assert_array_equal(flip_horizontal(image), image[:, ::-1])
    resize_into(image[:1, :1], (0, 0, 1, 1), picture, (0, 0, 1, 40))
    assert resize_height(noise(3, 1, 0), 1).shape == (1, 1, 3)
    (record,) = without_numba.records
    assert record.getMessage().startswith("numba is missing")
    assert record.getMessage().endswith("pip install numba")


def test_boxes_are_the_same_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    low = rng.random((500, 2)) * 60
    boxes = np.concatenate([low, low + rng.random((500, 2)) * 40], 1).astype(np.float32)
    frames = np.sort(rng.integers(0, 80, (2, 25, 2, 2)), axis=2)
    windows, targets = (frames + np.array([[0], [1]])).reshape(2, 25, 4)
    expected = transform_boxes(boxes, windows, targets, [20] * 25)
    monkeypatch.setattr("utils.augment.kernels.load_loops", lambda: None)
    for one, other in zip(transform_boxes(boxes, windows, targets, [20] * 25), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert transform_boxes(boxes[:0], windows[:0], targets[:0], [])[0].shape == (0, 4)
