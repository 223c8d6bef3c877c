"""What many training samples need, as loops compiled by Numba: OpenCV and NumPy take 1.2 to 5 times as long.

Importing this takes a second, and 100 MB: for a few images OpenCV is the better choice.
"""

import pickle
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir
from numba import float32, int64, njit, types, uint8, uint16, uint32, uint64, uintp, void
from numba.core.base import BaseContext
from numba.core.typing import Signature
from numba.extending import intrinsic

from utils.augment.policy import MIN_SIDE, MIN_VISIBLE

Box = tuple[int, int, int, int]
_NOT_KEPT = (  # there is no such folder, or what lies there is damaged, which unpickling says in many ways
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


def resize_height(image: np.ndarray, height: int) -> np.ndarray:
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


def show(image: np.ndarray, window: Box, picture: np.ndarray, target: Box) -> None:
    """Fill a part of a picture with a part of an image, as cv2.resize with INTER_LINEAR does, to two levels.

    One was the most in photographs (docs/results.md); two are where neighbors are as different as in noise.

    Args:
        image: (H, W, 3) uint8.
        window: left, top, right, bottom in the image's pixels, within it.
        picture: (height, width, 3) uint8, contiguous and not the image.
        target: left, top, right, bottom in the picture's pixels, within it.
    """
    _show(_rows(np.ascontiguousarray(image)), window, _rows(picture), target)


def through(
    boxes: np.ndarray,
    windows: Sequence[Box] | np.ndarray,
    targets: Sequence[Box] | np.ndarray,
    counts: Sequence[int] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as windows become targets, each cut to its target; without those of which too little is left.

    Args:
        boxes: (N, 4) float32.
        windows, targets: (W, 4), see show.
        counts: (W,), how many of the boxes, in their order, are seen through each window.

    Returns:
        (M, 4) float32 boxes, at least MIN_SIDE wide and high and at least MIN_VISIBLE of what they were before the cut,
        and (N,) bool, which these are.
    """
    cut, visible = np.empty((len(boxes), 4), np.float32), np.empty(len(boxes), np.bool_)
    frames = np.array((windows, targets), np.float32)
    counts = np.array(counts, np.int64)
    _through(np.ascontiguousarray(boxes), frames[0], frames[1], counts, MIN_SIDE, MIN_VISIBLE, cut, visible)
    return cut[visible], visible


def _rows(image: np.ndarray) -> np.ndarray:
    return image.reshape(len(image), -1)


def _compiled(*arguments: types.Type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Machine code, kept for the next process where there is a folder for it: beside this file, or the user's own."""
    options = {"boundscheck": False, "error_model": "numpy", "nogil": True}

    def compiled(loop: Callable[..., None]) -> Callable[..., None]:
        try:
            return njit(void(*arguments), cache=True, **options)(loop)
        except _NOT_KEPT:
            return njit(void(*arguments), **options)(loop)

    return compiled


@intrinsic
def _word(_: object, array: types.Array, start: types.Integer) -> tuple[Signature, Callable[..., ir.Value]]:
    """The 8 bytes of an array from byte `start` on, as one number; for compiled loops."""

    def load(context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: list[ir.Value]) -> ir.Value:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, start), load


@_compiled(_SOURCE, _OUT)
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


@_compiled(_SOURCE, _OUT)
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


@_compiled(_SOURCE, _BOX, _OUT, _BOX)
def _show(source: np.ndarray, window: Box, out: np.ndarray, target: Box) -> None:
    """Fill a part of `out` with a part of `source`, linearly interpolated: each new row first, then along it.

    Args:
        source, out: (H, 3 W) uint8, three bytes a pixel.
        window, target: left, top, right, bottom in pixels.
    """
    left, top, right, bottom = window
    new_left, new_top, new_right, new_bottom = target
    height, width, new_height, new_width = bottom - top, right - left, new_bottom - new_top, new_right - new_left
    # Where each new pixel lies between two old ones, and how far it is from the first of these, of 256.
    first_of, part_of = np.empty(new_width, np.uint32), np.empty(new_width, np.uint32)
    for x in range(new_width):
        place = min(max((x + 0.5) * width / new_width - 0.5, 0.0), width - 1.0)
        first = min(int(place), max(width - 2, 0))
        first_of[x] = 6 * first  # bytes
        part_of[x] = uint32(np.rint((place - first) * 256))
    row = np.empty(3 * width + 4, np.uint16)  # as far as the last pixel's word goes, were the image one pixel wide
    for y in range(new_height):
        place = min(max((y + 0.5) * height / new_height - 0.5, 0.0), height - 1.0)
        first = int(place)
        lower = uint16(np.rint((place - first) * 256))
        upper = uint16(256) - lower
        above = source[top + first, 3 * left : 3 * right]
        below = source[top + min(first + 1, height - 1), 3 * left : 3 * right]
        for x in range(3 * width):
            row[x] = uint16(uint16(above[x] * upper) + uint16(below[x] * lower) + uint16(128)) >> 8
        made = out[new_top + y, 3 * new_left : 3 * new_right]
        to = uintp(0)
        for x in range(new_width):
            # The three values of a pixel at once, 16 bits for each in a word of 64; what the last 16 hold is no matter.
            # p (256 - w) + q w is p 256 + (q - p) w: no sum is larger than 16 bits, and what is negative on the way is
            # right again in the end.
            start = uintp(first_of[x])
            pixel, after = _word(row, start), _word(row, start + uintp(6))
            mixed = (pixel << uint64(8)) + (after - pixel) * uint64(part_of[x]) + uint64(0x0080_0080_0080)
            made[to] = uint8(mixed >> uint64(8))
            made[to + uintp(1)] = uint8(mixed >> uint64(24))
            made[to + uintp(2)] = uint8(mixed >> uint64(40))
            to += uintp(3)


@_compiled(_SOURCE_BOXES, _BOXES, _BOXES, _COUNTS, float32, float32, _BOXES, _FLAGS)
def _through(
    boxes: np.ndarray,
    windows: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    min_side: float,  # no constants: the machine code that is kept would not follow a change of theirs
    min_visible: float,
    cut: np.ndarray,
    visible: np.ndarray,
) -> None:
    """See through; fills `cut` (N, 4) and `visible` (N,)."""
    k = 0
    for window, target, count in zip(windows, targets, counts):  # noqa: B905 - compiled
        low_x, low_y, high_x, high_y = target
        scale_x, scale_y = (high_x - low_x) / (window[2] - window[0]), (high_y - low_y) / (window[3] - window[1])
        for _ in range(count):
            left, right = (boxes[k, 0] - window[0]) * scale_x + low_x, (boxes[k, 2] - window[0]) * scale_x + low_x
            top, bottom = (boxes[k, 1] - window[1]) * scale_y + low_y, (boxes[k, 3] - window[1]) * scale_y + low_y
            cut[k, 0], cut[k, 2] = min(max(left, low_x), high_x), min(max(right, low_x), high_x)
            cut[k, 1], cut[k, 3] = min(max(top, low_y), high_y), min(max(bottom, low_y), high_y)
            width, height = cut[k, 2] - cut[k, 0], cut[k, 3] - cut[k, 1]
            is_kept = width * height >= min_visible * ((right - left) * (bottom - top))
            visible[k] = is_kept and min(width, height) >= min_side
            k += 1
