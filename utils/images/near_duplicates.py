"""Find duplicate images in a data set: equal bytes, or re-compressed, resized or converted copies.

Copies are found in two steps. A difference hash of 64 bits (is a cell of a 9 x 8 grid brighter than its left neighbor?)
gives candidates, at most 3 bits apart. A thumbnail of 16 x 16 gray cells then decides, as all flat images have the same
hash. Measured on BCCD (640 x 480): JPEG of quality 30, PNG, and sizes of 0.45 to 1.33 differ by at most 3 bits and 5
gray levels, other images by at least 13 bits and 33 levels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.machine import cores
from utils.progress import progress_bar

_BANDS = 4  # of 16 bits; of hashes at most three bits apart at least one band is equal
_MARGIN = 2  # gray levels; compression alone causes smaller differences between cells
_TOLERANCE = 8  # gray levels between cells of two thumbnails
_THUMBNAIL = 16  # cells a side
_NEIGHBORS = 32  # following hashes in sort order that each is compared with: thousands may be equal
_SMALLEST_SIDE = 128  # px of the shorter side after reduced decoding, so that its rounding shifts no cell
_REDUCED = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
_BLOCK = 256  # images submitted to the pool at a time
_COMPARED = 1 << 14  # pairs compared at a time, 25 MB
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


class Fingerprints(NamedTuple):
    """Hashes and thumbnails of N images, 264 bytes each."""

    decoded: np.ndarray  # (N,) bool; False: the pixels cannot be decoded, and the rest is zero
    hashes: np.ndarray  # (N, 4) uint16
    thumbnails: np.ndarray  # (N, 256) uint8


def same_bytes(paths: Sequence[Path]) -> list[list[int]]:
    """Group files with equal content: lists of two or more ascending positions in `paths`."""
    by_size, by_content = defaultdict(list), defaultdict(list)
    for i, path in enumerate(paths):
        if path.is_file():
            by_size[path.stat().st_size].append(i)
    for group in by_size.values():
        for i in group if len(group) > 1 else ():
            by_content[_digest(paths[i])].append(i)
    return [group for group in by_content.values() if len(group) > 1]


def fingerprints(paths: Sequence[Path], sizes: np.ndarray) -> Fingerprints:
    """Decode every image at reduced size, on all cores, and compute its hash and thumbnail.

    Args:
        sizes: (N, 2) height and width of each image.
    """
    prints = Fingerprints(
        np.zeros(len(paths), bool),
        np.zeros((len(paths), _BANDS), np.uint16),
        np.zeros((len(paths), _THUMBNAIL**2), np.uint8),
    )
    shorter = sizes.min(1).tolist()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with ThreadPoolExecutor(cores()) as pool:  # threads: OpenCV releases the GIL while decoding
        for start in progress_bar(range(0, len(paths), _BLOCK), f"Comparing images, blocks of {_BLOCK}"):
            block = slice(start, start + _BLOCK)
            for i, result in enumerate(pool.map(_fingerprint, paths[block], shorter[block]), start):
                if result is not None:
                    prints.decoded[i] = True
                    prints.hashes[i], prints.thumbnails[i] = result
    return prints


def near_pairs(prints: Fingerprints) -> np.ndarray:
    """(P, 2) int64 positions of images that look the same, first < second, sorted by the second."""
    pairs = np.empty(0, np.int64)  # second * N + first
    for band in range(_BANDS):
        near = [np.maximum(one, other) * len(prints.decoded) + np.minimum(one, other)
                for one, other in _candidates(prints, band)]  # fmt: skip
        pairs = np.unique(np.concatenate([pairs, *near]))
    second, first = np.divmod(pairs, max(1, len(prints.decoded)))
    return np.stack([first, second], 1)


def _candidates(prints: Fingerprints, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions of images that look the same and have an equal band, block by block."""
    rest = [prints.hashes[:, other] for other in range(_BANDS) if other != band]
    order = np.lexsort((prints.thumbnails.mean(1), *rest, prints.hashes[:, band]))  # similar images become adjacent
    order = order[prints.decoded[order]]
    value = prints.hashes[order, band]
    for step in range(1, min(_NEIGHBORS + 1, len(order))):
        equal = np.flatnonzero(value[step:] == value[:-step])
        if not len(equal):
            return
        for start in range(0, len(equal), _COMPARED):
            at = equal[start : start + _COMPARED]
            one, other = order[at], order[at + step]
            same = _look_the_same(prints, one, other)
            yield one[same], other[same]


def _look_the_same(prints: Fingerprints, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(K,) bool for K pairs of positions."""
    same = _ONES[prints.hashes[one] ^ prints.hashes[other]].sum(1) < _BANDS
    apart = prints.thumbnails[one[same]].astype(np.int16) - prints.thumbnails[other[same]]
    same[same] = np.abs(apart).max(1, initial=0) <= _TOLERANCE
    return same


def _fingerprint(path: Path, shorter_side: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Hash (4,) and thumbnail (256,) of a displayed image, None if it cannot be decoded."""
    factor = next((factor for factor in _REDUCED if shorter_side >= factor * _SMALLEST_SIDE), 1)
    try:
        data = np.fromfile(path, np.uint8)
        gray = cv2.imdecode(data, _REDUCED.get(factor, cv2.IMREAD_GRAYSCALE))
    except (OSError, cv2.error):
        return None
    if gray is None:
        return None
    gray = gray.astype(np.float32)
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    brighter = (cells[:, 1:] - cells[:, :-1]).ravel() > _MARGIN
    # Each band has cells from the whole image: the cells of a clear sky are all equal.
    spread = brighter.reshape(-1, _BANDS).T
    thumbnail = cv2.resize(gray, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.packbits(spread).view(np.uint16), np.rint(thumbnail).astype(np.uint8).ravel()


def _digest(path: Path) -> bytes:
    content = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.digest()
