import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from utils.errors import UserError
from utils.loading import image_cache
from utils.loading.image_cache import (
    ImageCache,
    RecentImages,
    cache_size,
    fits_auto_cache,
    make_cache_files,
    recent_images_size,
)

SIZES = np.array([[3, 5], [1, 1], [4, 2]])


def image(i: int, value: int) -> np.ndarray:
    return np.full((*SIZES[i], 3), value, np.uint8)


@pytest.fixture(params=["ram", "disk", "plain file"])
def cache(request, tmp_path: Path, monkeypatch) -> ImageCache:
    if request.param == "plain file":  # where the system has no files without a name
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr(image_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    kind = "disk" if request.param == "disk" else "ram"
    (path,), _ = make_cache_files(kind, [cache_size(SIZES)], tmp_path)
    assert (list(tmp_path.iterdir()) == []) == (request.param != "plain file")
    return ImageCache(path, SIZES)


def test_what_is_put_in_is_taken_out(cache: ImageCache) -> None:
    assert [cache.get(i) for i in range(3)] == [None] * 3
    for i in (2, 0):
        cache.put(i, image(i, 10 + i))
    assert cache.get(1) is None
    for i in (0, 2):
        np.testing.assert_array_equal(cache.get(i), image(i, 10 + i))
    with pytest.raises(ValueError, match="read-only"):
        cache.get(0)[0, 0, 0] = 1


def _put(cache: ImageCache, i: int) -> None:
    cache.put(i, image(i, 7))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_it(cache: ImageCache, method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=_put, args=(cache, 1))
    process.start()
    process.join()
    np.testing.assert_array_equal(cache.get(1), image(1, 7))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).get(1), image(1, 7))


def test_recent_images_reuse_slots() -> None:
    recent = RecentImages(2, SIZES)
    assert recent.get(0, 0) is None
    for place, i in enumerate((0, 2)):
        recent.put(i, image(i, 10 + i), place)
    for place, i in enumerate((0, 2)):
        np.testing.assert_array_equal(recent.get(i, place), image(i, 10 + i))
    with pytest.raises(ValueError, match="read-only"):
        recent.get(0, 0)[0, 0, 0] = 1
    assert recent.get(2, 0) is None, "another image is there"
    recent.put(1, image(1, 7), 2)
    assert recent.get(0, 0) is None
    np.testing.assert_array_equal(recent.get(1, 2), image(1, 7))
    recent.put(1, image(1, 8))
    assert recent.get(1) is None, "an image without a position is not stored"


def test_an_image_that_is_half_written_is_not_there() -> None:
    """A worker may be killed while it writes an image."""
    recent = RecentImages(1, SIZES)
    recent.put(0, image(0, 10), 0)
    with pytest.raises(ValueError, match="broadcast"):
        recent.put(1, np.zeros((9, 9, 3), np.uint8), 0)
    assert recent.get(0, 0) is None
    assert recent.get(1, 0) is None


def _put_recent(recent: RecentImages) -> None:
    recent.put(1, image(1, 7), 5)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_recent_images(monkeypatch, method: str) -> None:
    context = multiprocessing.get_context(method)
    monkeypatch.setattr("utils.loading.shared_memory.multiprocessing.get_start_method", lambda: method)
    recent = RecentImages(3, SIZES)
    process = context.Process(target=_put_recent, args=(recent,))
    process.start()
    process.join()
    np.testing.assert_array_equal(recent.get(1, 5), image(1, 7))


def test_what_recent_images_take(monkeypatch) -> None:
    size = recent_images_size(100, SIZES)
    assert size == 100 * (8 + 3 * 5 * 3), "each as large as the largest"
    monkeypatch.setattr(image_cache, "free_memory", lambda: 4 * size)
    assert fits_auto_cache(size)
    assert not fits_auto_cache(size + 1)


@pytest.mark.parametrize(
    ("kind", "free", "kept", "words"),
    [
        ("off", 1 << 30, False, "not kept (--cache off)"),
        ("auto", 4 << 20, True, "kept in memory once made, up to 0.00 GiB of 0.00 GiB free memory"),
        ("auto", (4 << 20) - 8, False, "not kept: 0.00 GiB of 0.00 GiB free memory (--cache ram or disk would)"),
        ("ram", 1 << 20, True, "kept in memory"),
        ("disk", 0, True, "kept on disk"),
    ],
)
def test_what_is_decided_is_said(tmp_path: Path, monkeypatch, kind: str, free: int, kept: bool, words: str) -> None:
    monkeypatch.setattr(image_cache, "free_memory", lambda: free)
    paths, said = make_cache_files(kind, [1 << 19, 1 << 19], tmp_path)
    assert [path is not None for path in paths] == [kept] * 2
    assert words in said


def test_too_little_room_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(image_cache, "free_memory", lambda: 1 << 30)
    with pytest.raises(UserError, match=r"--cache ram needs 2\.00 GiB of 1\.00 GiB free memory: --cache disk or off"):
        make_cache_files("ram", [2 << 30], tmp_path)
    with pytest.raises(UserError, match=r"--cache disk needs .* GiB: --cache off"):
        make_cache_files("disk", [1 << 60], tmp_path)
    with pytest.raises(UserError, match=r"--cache disk: .*nothing: No such file or directory: --cache off"):
        make_cache_files("disk", [1], tmp_path / "nothing")
