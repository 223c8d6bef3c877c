"""Two changes of images that every sample may need, as loops compiled by Numba: OpenCV takes two to four times as long.

Importing this takes a second, and 100 MB: for a few images OpenCV is the better choice.
"""

import pickle
from collections.abc import Callable

import numpy as np
from numba import njit, types, uint8, uint16, uintp, void

_NOT_KEPT = (  # there is no such folder, or what lies there is damaged, which unpickling says in many ways
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError),
)
_OUT = types.Array(types.uint8, 2, "C")
_SOURCE = types.Array(types.uint8, 2, "C", readonly=True)


def stretched(image: np.ndarray, height: int) -> np.ndarray:
    """(H, W, 3) uint8 at another height: cv2.resize with INTER_LINEAR, on x86 to the bit."""
    made = np.empty((height, *image.shape[1:]), np.uint8)
    _blend(_rows(np.ascontiguousarray(image)), _rows(made))
    return made


def mirrored(image: np.ndarray) -> np.ndarray:
    """The mirror image of (H, W, 3) uint8, left to right; in its own memory, unless that is read-only or a part."""
    image = np.ascontiguousarray(image)
    made = image if image.flags.writeable else np.empty_like(image)
    _mirror(_rows(image), _rows(made))
    return made


def _rows(image: np.ndarray) -> np.ndarray:
    return image.reshape(len(image), -1)


def _compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Machine code, kept for the next process where there is a folder for it: beside this file, or the user's own."""
    options = {"boundscheck": False, "error_model": "numpy", "nogil": True}
    try:
        return njit(void(_SOURCE, _OUT), cache=True, **options)(loop)
    except _NOT_KEPT:
        return njit(void(_SOURCE, _OUT), **options)(loop)


@_compiled
def _blend(source: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the rows of `source`, linearly interpolated; each lies where a resize puts it.

    Weights have 11 bits, and each weighted row is cut to two bits behind the point, as in OpenCV
    (modules/imgproc/src/resize.cpp, VResizeLinear).

    Args:
        source: (H, B) uint8, B bytes a row.
        out: (new H, B) uint8.
    """
    height, length = out.shape
    last = source.shape[0] - 1
    scale = 1 / (height / source.shape[0])
    one, unit = np.float32(1), np.float32(2048)
    for y in range(height):
        place = np.float32((y + 0.5) * scale - 0.5)
        above = int(np.floor(place))
        part = place - np.float32(above)
        upper, lower = uint16(np.rint((one - part) * unit)), uint16(np.rint(part * unit))
        # A weight in two parts, w = 8 a + b: w p // 512 = (a p + b p // 8) // 64 needs no more than 16 bits, of which
        # a processor handles twice as many at once as of 32.
        a, b, c, d = upper >> 3, upper & 7, lower >> 3, lower & 7
        first, second, row = source[min(max(above, 0), last)], source[min(max(above + 1, 0), last)], out[y]
        for x in range(length):
            p = uint16(first[x] * a + (first[x] * b >> 3))
            q = uint16(second[x] * c + (second[x] * d >> 3))
            row[x] = uint8((uint16(p >> 6) + uint16(q >> 6) + uint16(2)) >> 2)


@_compiled
def _mirror(source: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the rows of `source`, the last pixel first; both may be the same.

    Args:
        source, out: (H, 3 W) uint8, three bytes a pixel.
    """
    height, length = source.shape
    row = np.empty(length, np.uint8)
    for y in range(height):
        pixels, reverse = source[y], out[y]
        for x in range(length):
            row[x] = pixels[x]
        for pixel in range(length // 3):
            # Indices without a sign are not looked at for negative ones, which would keep the loop from going through
            # many pixels at once.
            to = uintp(3) * uintp(pixel)
            end = uintp(length) - to
            reverse[to] = row[end - uintp(3)]
            reverse[to + uintp(1)] = row[end - uintp(2)]
            reverse[to + uintp(2)] = row[end - uintp(1)]
