from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.images import near_duplicates
from utils.images.near_duplicates import Fingerprints, fingerprints, near_pairs, same_bytes


def picture(seed: int) -> np.ndarray:
    """(480, 640, 3) uint8, blots of all colors."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(cells, (640, 480), interpolation=cv2.INTER_CUBIC)


def pairs_of(folder: Path, *images: np.ndarray, suffix: str = ".jpg", quality: int = 90) -> list[list[int]]:
    """near_pairs of the images; the last is saved with this suffix and quality."""
    paths = [folder / f"{i}{suffix if i == len(images) - 1 else '.png'}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [])
    sizes = np.array([image.shape[:2] for image in images])
    return near_pairs(fingerprints(paths, sizes)).tolist()


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_a_recompressed_copy_is_found(tmp_path: Path, quality: int) -> None:
    assert pairs_of(tmp_path, picture(1), picture(0), picture(0), quality=quality) == [[1, 2]]


@pytest.mark.parametrize("size", [(640, 640), (600, 450), (320, 240), (288, 216), (851, 638), (100, 75)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_resized_copy_is_found(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    smaller = cv2.resize(picture(0), size, interpolation=cv2.INTER_AREA)
    assert pairs_of(tmp_path, picture(0), picture(1), smaller, suffix=suffix) == [[0, 2]]


def test_other_pictures_are_not(tmp_path: Path) -> None:
    assert pairs_of(tmp_path, *(picture(seed) for seed in range(60))) == []


def test_flat_pictures_are_told_apart_by_what_is_on_them(tmp_path: Path) -> None:
    """Flat images have the same hash, as all cells are as bright as their neighbors."""
    images = [np.full((480, 640, 3), gray, np.uint8) for gray in (100, 103, 200)]
    assert pairs_of(tmp_path, *images) == [[0, 1]]
    small = [np.full((480, 640, 3), 128, np.uint8) for _ in range(3)]
    for i, image in enumerate(small):
        image[200:240, 100 * i : 100 * i + 40] = 0
    assert pairs_of(tmp_path, *small) == []


def test_one_that_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    (tmp_path / "b.jpg").write_bytes(b"")
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "missing.jpg"]
    found = fingerprints(paths, np.full((3, 2), 9))
    assert found.decoded.tolist() == [False] * 3
    assert near_pairs(found).tolist() == []


def test_no_images() -> None:
    found = fingerprints([], np.empty((0, 2), np.int64))
    assert near_pairs(found).shape == (0, 2)
    assert same_bytes([]) == []


def test_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcde"]
    for path, content in zip(paths, (b"one", b"two", b"one", b"three", b"one"), strict=True):
        path.write_bytes(content)
    assert same_bytes([*paths, tmp_path / "missing"]) == [[0, 2, 4]]


def brute_force(found: Fingerprints) -> list[list[int]]:
    """All pairs with at most three bits between hashes and eight levels between thumbnails."""
    pairs = []
    for second in range(len(found.decoded)):
        for first in range(second):
            words = np.bitwise_xor(found.hashes[first], found.hashes[second]).tolist()
            apart = np.abs(found.thumbnails[first].astype(int) - found.thumbnails[second]).max()
            if sum(word.bit_count() for word in words) <= 3 and apart <= 8:
                pairs.append([first, second])
    return pairs


def test_bands_lose_no_pair() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 16, (4, 4), np.uint16)[rng.integers(0, 4, 150)]
    for _ in range(2):
        hashes[np.arange(150), rng.integers(0, 4, 150)] ^= (1 << rng.integers(0, 16, 150)).astype(np.uint16)
    thumbnails = rng.integers(100, 103, (150, 256)).astype(np.uint8) + 9 * rng.integers(0, 2, (150, 1)).astype(np.uint8)
    found = Fingerprints(np.ones(150, bool), hashes, thumbnails)
    expected = brute_force(found)
    assert len(expected) > 100
    assert near_pairs(found).tolist() == expected


def test_thousands_that_look_the_same_take_no_square_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_COMPARED", 1000)
    found = Fingerprints(np.ones(5000, bool), np.zeros((5000, 4), np.uint16), np.zeros((5000, 256), np.uint8))
    pairs = near_pairs(found)
    assert np.unique(pairs[:, 1]).tolist() == list(range(1, 5000))
    assert len(pairs) <= 5000 * 32
