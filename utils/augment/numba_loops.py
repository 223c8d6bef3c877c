"""Loops over pixels and boxes, compiled by Numba; utils/augment/kernels.py checks arguments and calls them.

The only module that imports numba. Importing it takes a second, and 100 MB.
"""

import pickle
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import float32, int64, njit, types, uint8, uint16, uint32, uint64, uintp, void
from numba.core.base import BaseContext
from numba.core.typing import Signature
from numba.extending import intrinsic

_Box = tuple[int, int, int, int]
_CACHE_ERRORS = (  # no folder can be written to, or its files are damaged, which unpickling reports in many ways
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError),
)
_OUT = types.Array(types.uint8, 2, "C")
_SOURCE = types.Array(types.uint8, 2, "C", readonly=True)
_BOX = types.UniTuple(int64, 4)
_BOXES = types.Array(types.float32, 2, "C")
_SOURCE_BOXES = types.Array(types.float32, 2, "C", readonly=True)
_COUNTS = types.Array(types.int64, 1, "C")
_FLAGS = types.Array(types.boolean, 1, "C")


def _compiled(*arguments: types.Type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile for these argument types; machine code is cached on disk, beside this file or in the user's folder."""
    options = {"boundscheck": False, "error_model": "numpy", "nogil": True}

    def compiled(loop: Callable[..., None]) -> Callable[..., None]:
        try:
            return njit(void(*arguments), cache=True, **options)(loop)
        except _CACHE_ERRORS:
            return njit(void(*arguments), **options)(loop)

    return compiled


@intrinsic
def _word(_: object, array: types.Array, start: types.Integer) -> tuple[Signature, Callable[..., ir.Value]]:
    """The 8 bytes of an array from byte `start` on, as one number; for compiled loops."""

    def load(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: list[ir.Value]) -> ir.Value:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [arguments[1]])
        return builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, start), load


@_compiled(_SOURCE, _OUT)
def resize_height_loop(source: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with rows interpolated linearly between those of `source`, as cv2.resize does.

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
        position = np.float32((y + 0.5) * scale - 0.5)
        above = int(np.floor(position))
        part = position - np.float32(above)
        upper, lower = uint16(np.rint((one - part) * unit)), uint16(np.rint(part * unit))
        # A weight in two parts, w = 8 a + b: w p // 512 = (a p + b p // 8) // 64 needs no more than 16 bits, of which
        # a processor handles twice as many at once as of 32.
        a, b, c, d = upper >> 3, upper & 7, lower >> 3, lower & 7
        first, second, row = source[min(max(above, 0), last)], source[min(max(above + 1, 0), last)], out[y]
        for x in range(length):
            p = uint16(first[x] * a + (first[x] * b >> 3))
            q = uint16(second[x] * c + (second[x] * d >> 3))
            row[x] = uint8((uint16(p >> 6) + uint16(q >> 6) + uint16(2)) >> 2)


@_compiled(_SOURCE, _OUT)
def flip_horizontal_loop(source: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the rows of `source`, pixels in reverse order; both may be the same array.

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
            # Unsigned indices need no check for negative ones, which would keep the loop from being vectorized.
            to = uintp(3) * uintp(pixel)
            end = uintp(length) - to
            reverse[to] = row[end - uintp(3)]
            reverse[to + uintp(1)] = row[end - uintp(2)]
            reverse[to + uintp(2)] = row[end - uintp(1)]


@_compiled(_SOURCE, _BOX, _OUT, _BOX)
def resize_into_loop(source: np.ndarray, window: _Box, out: np.ndarray, target: _Box) -> None:
    """Fill a part of `out` with a part of `source`, interpolated linearly: between rows first, then along the row.

    Args:
        source, out: (H, 3 W) uint8, three bytes a pixel.
        window, target: left, top, right, bottom in pixels.
    """
    left, top, right, bottom = window
    new_left, new_top, new_right, new_bottom = target
    height, width, new_height, new_width = bottom - top, right - left, new_bottom - new_top, new_right - new_left
    # For each new pixel the old one to its left, and the distance from it in 1/256 px.
    first_of, part_of = np.empty(new_width, np.uint32), np.empty(new_width, np.uint32)
    for x in range(new_width):
        position = min(max((x + 0.5) * width / new_width - 0.5, 0.0), width - 1.0)
        first = min(int(position), max(width - 2, 0))
        first_of[x] = 6 * first  # bytes
        part_of[x] = uint32(np.rint((position - first) * 256))
    row = np.empty(3 * width + 4, np.uint16)  # as far as the last pixel's word goes, were the image one pixel wide
    for y in range(new_height):
        position = min(max((y + 0.5) * height / new_height - 0.5, 0.0), height - 1.0)
        first = int(position)
        lower = uint16(np.rint((position - first) * 256))
        upper = uint16(256) - lower
        above = source[top + first, 3 * left : 3 * right]
        below = source[top + min(first + 1, height - 1), 3 * left : 3 * right]
        for x in range(3 * width):
            row[x] = uint16(uint16(above[x] * upper) + uint16(below[x] * lower) + uint16(128)) >> 8
        resized = out[new_top + y, 3 * new_left : 3 * new_right]
        to = uintp(0)
        for x in range(new_width):
            # The three values of a pixel at once, 16 bits each in a word of 64 bits; the last 16 bits are not used.
            # p (256 - w) + q w = p 256 + (q - p) w: no sum exceeds 16 bits, and negative intermediate values wrap
            # around and back.
            start = uintp(first_of[x])
            pixel, after = _word(row, start), _word(row, start + uintp(6))
            mixed = (pixel << uint64(8)) + (after - pixel) * uint64(part_of[x]) + uint64(0x0080_0080_0080)
            resized[to] = uint8(mixed >> uint64(8))
            resized[to + uintp(1)] = uint8(mixed >> uint64(24))
            resized[to + uintp(2)] = uint8(mixed >> uint64(40))
            to += uintp(3)


@_compiled(_SOURCE_BOXES, _BOXES, _BOXES, _COUNTS, float32, float32, _BOXES, _FLAGS)
def transform_boxes_loop(
    boxes: np.ndarray,
    windows: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    min_side: float,  # no constants: cached machine code would not follow a change of them
    min_visible: float,
    clipped: np.ndarray,
    visible: np.ndarray,
) -> None:
    """Fill `clipped` (N, 4) and `visible` (N,), see utils/augment/kernels.py."""
    k = 0
    for window, target, count in zip(windows, targets, counts):  # noqa: B905 - compiled
        low_x, low_y, high_x, high_y = target
        scale_x, scale_y = (high_x - low_x) / (window[2] - window[0]), (high_y - low_y) / (window[3] - window[1])
        for _ in range(count):
            left, right = (boxes[k, 0] - window[0]) * scale_x + low_x, (boxes[k, 2] - window[0]) * scale_x + low_x
            top, bottom = (boxes[k, 1] - window[1]) * scale_y + low_y, (boxes[k, 3] - window[1]) * scale_y + low_y
            clipped[k, 0], clipped[k, 2] = min(max(left, low_x), high_x), min(max(right, low_x), high_x)
            clipped[k, 1], clipped[k, 3] = min(max(top, low_y), high_y), min(max(bottom, low_y), high_y)
            width, height = clipped[k, 2] - clipped[k, 0], clipped[k, 3] - clipped[k, 1]
            is_kept = width * height >= min_visible * ((right - left) * (bottom - top))
            visible[k] = is_kept and min(width, height) >= min_side
            k += 1
