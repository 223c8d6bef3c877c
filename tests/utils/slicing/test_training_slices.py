"""Slices as training images."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import DetectionDataset
from tests.conftest import CLASSES, squares
from utils.augment.policy import POLICIES
from utils.cli.flags import parse_options
from utils.cli.train_options import SliceTrainOptions
from utils.errors import UserError
from utils.images.file_lists import FileList
from utils.images.image_files import write_image
from utils.labels.boxes import MIN_SIDE, MIN_VISIBLE
from utils.labels.index import LabelIndex, LabelReport
from utils.loading.size_rule import SizeRule
from utils.slicing.grid import Slices
from utils.slicing.training_slices import SliceIndex, slice_index, with_slices


def index_of(images: list[tuple[tuple[int, int], np.ndarray]], folder: Path = Path("x")) -> LabelIndex:
    """Of sizes and boxes (n, 4); every third box is ignored."""
    boxes = np.concatenate([boxes.reshape(-1, 4) for _, boxes in images]).astype(np.float32)
    return LabelIndex(
        files=FileList(folder, (f"{i}.png" for i in range(len(images)))),
        sizes=np.array([size for size, _ in images], np.int32),
        as_stored=np.zeros(len(images), bool),
        offsets=np.cumsum([0, *(len(boxes) for _, boxes in images)]),
        boxes=boxes,
        labels=1 + np.arange(len(boxes), dtype=np.int32) % 2,
        ignored=np.arange(len(boxes)) % 3 == 2,
        classes=tuple(CLASSES),
        report=LabelReport(),
    )


@st.composite
def some_images(draw: st.DrawFn) -> LabelIndex:
    images = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(20, 260)), draw(st.integers(20, 260))
        rng = np.random.default_rng(draw(st.integers(0, 10**6)))
        sides = 2 + rng.random((draw(st.integers(0, 12)), 2)) * rng.choice([10, 40, 200])
        corners = rng.random(sides.shape) * (np.array(size)[::-1] - 2)
        images.append((size, np.concatenate([corners, (corners + sides).clip(0, size[::-1])], 1)))
    return index_of(images)


GRIDS = st.builds(Slices, *[st.integers(24, 120)] * 2, *[st.sampled_from([0.0, 0.2, 0.5])] * 2)


@given(some_images(), GRIDS, st.sampled_from([0.0, 0.3, 1.0]))
def test_what_slices_are(index: LabelIndex, slices: Slices, empty: float) -> None:
    """Boxes lie inside and are those of the image, cut, by the rule; none is lost; empty slices are few."""
    sliced = slice_index(index, slices, empty=empty)
    assert len(sliced) == len(sliced.windows) == len(sliced.sizes) == len(sliced.offsets) - 1
    with_objects = without = 0
    for i in range(len(sliced)):
        left, top, right, bottom = sliced.windows[i].tolist()
        of_image = index.rows(int(sliced.images[i]))
        own, labels, ignored = index.boxes[of_image], index.labels[of_image], index.ignored[of_image]
        rows = sliced.rows(i)
        assert sliced.path(i) == index.path(int(sliced.images[i]))
        assert sliced.sizes[i].tolist() == [bottom - top, right - left]
        if i == 0 or sliced.images[i] != sliced.images[i - 1]:  # the whole image, untouched
            assert (left, top, bottom, right) == (0, 0, *index.sizes[sliced.images[i]].tolist())
            np.testing.assert_array_equal(sliced.boxes[rows], own)
            np.testing.assert_array_equal(sliced.ignored[rows], ignored)
            continue
        cut = own.clip([left, top] * 2, [right, bottom] * 2)
        sides, areas = cut[:, 2:] - cut[:, :2], (own[:, 2:] - own[:, :2]).prod(1)
        share = sides.prod(1) / areas
        clear = np.abs(share - MIN_VISIBLE) > 1e-3  # of rounding
        expected = (sides >= MIN_SIDE).all(1) & (share >= MIN_VISIBLE)
        if clear.all() and (np.abs(sides - MIN_SIDE) > 1e-3).all():
            np.testing.assert_allclose(sliced.boxes[rows], cut[expected] - [left, top] * 2, atol=1e-3)
            np.testing.assert_array_equal(sliced.labels[rows], labels[expected])
            np.testing.assert_array_equal(sliced.ignored[rows], ignored[expected])
        assert (sliced.boxes[rows] >= 0).all()
        assert (sliced.boxes[rows] <= [right - left, bottom - top] * 2).all()
        if (~sliced.ignored[rows]).any():
            with_objects += 1
        else:
            without += 1
            assert not (sides > 0).all(1).any()
    assert without <= empty * with_objects


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.3, 0.5]))
def test_an_object_no_larger_than_the_overlap_is_whole_in_some_slice(seed: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    size, sides = rng.integers(100, 400, 2), rng.integers(4, int(overlap * 80) + 1, (6, 2))
    corners = rng.random((6, 2)) * (size[::-1] - sides)
    index = index_of([(tuple(size), np.concatenate([corners, corners + sides], 1))])
    sliced = slice_index(index, Slices(80, 80, overlap, overlap))
    areas = (sliced.boxes[6:, 2:] - sliced.boxes[6:, :2]).prod(1)
    for k, area in enumerate(sides.prod(1)):
        if not index.ignored[k]:
            assert np.abs(areas - area).min() < 0.01 * area


def test_every_window_with_an_object_is_there() -> None:
    """So together they cover all that can be learned from."""
    index = index_of([((100, 300), np.array([[5, 5, 20, 20], [250, 50, 290, 90]], float))])
    sliced = slice_index(index, Slices(100, 100, 0, 0))
    assert sliced.windows.tolist() == [[0, 0, 300, 100], [0, 0, 100, 100], [200, 0, 300, 100]]
    assert sliced.boxes.tolist() == [[5, 5, 20, 20], [250, 50, 290, 90], [5, 5, 20, 20], [50, 50, 90, 90]]
    assert sliced.summary.endswith(
        "1 whole images, 2 slices with objects, 0 of 1 without; 0 that show only small parts of objects skipped"
    )


def test_chance_depends_on_the_seed_alone() -> None:
    index = index_of([((400, 400), np.array([[30 * k, 5, 30 * k + 9, 20] for k in range(12)], float))])
    windows = [slice_index(index, Slices(40, 40), empty=0.5, seed=seed).windows.tolist() for seed in (1, 1, 2)]
    assert windows[0] == windows[1] != windows[2]
    assert len(windows[0]) == len(windows[2])


def test_samples_are_the_files_own_pixels_and_the_cache_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [squares(rng, *size, 6) for size in ((90, 150), (50, 40))]
    for i, (image, _, _) in enumerate(pictures):
        write_image(tmp_path / f"{i}.png", image)
    index = index_of([(image.shape[:2], boxes) for image, boxes, _ in pictures], tmp_path)
    sliced = slice_index(index, Slices(60, 60))
    assert isinstance(sliced, SliceIndex)
    assert len(sliced) > 4
    for i in range(len(sliced)):
        left, top, right, bottom = sliced.windows[i]
        expected = pictures[sliced.images[i]][0][top:bottom, left:right]
        np.testing.assert_array_equal(sliced.pixels(i), expected)

    from utils.loading.image_cache import cache_size, make_cache_files

    plain, cached = (DetectionDataset(sliced, SizeRule(80), policy=POLICIES["strong"], seed=3) for _ in range(2))
    (path,), _ = make_cache_files("ram", [cache_size(cached.base_sizes())], tmp_path)
    cached.keep_images(path)
    for _ in range(2):
        for i in range(len(sliced)):
            one, other = plain[i, 1], cached[i, 1]
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.boxes, other.boxes)


def test_flags_of_slices_need_the_switch() -> None:
    parse_options(SliceTrainOptions, "", ["--slice-train", "--slice-height", "50"]).check()
    for arguments in (["--slice-height", "50"], ["--slice-empty", "0"]):
        with pytest.raises(UserError, match=f"{arguments[0]} is for slices: add --slice-train, or drop it"):
            parse_options(SliceTrainOptions, "", arguments).check()


def test_slices_are_added_to_the_images() -> None:
    index = index_of([((100, 300), np.array([[5, 5, 20, 20]], float))])
    slices = with_slices(index, height=50, width=60, overlap_height=0.2, overlap_width=0.2, empty=0.1, seed=0)
    assert slices.windows.tolist() == [[0, 0, 300, 100], [0, 0, 60, 50]]
