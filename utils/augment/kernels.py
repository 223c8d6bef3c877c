"""Image and box operations of augmentation, by loops that Numba compiles, or by OpenCV and NumPy where it is missing.

The compiled loops (utils/augment/numba_loops.py) are 1.2 to 5 times as fast. Loading them takes a second and 100 MB.
"""

import functools
import logging
import multiprocessing
from collections.abc import Sequence
from types import ModuleType

import cv2
import numpy as np

from utils.labels.boxes import MIN_SIDE, MIN_VISIBLE

Box = tuple[int, int, int, int]
log = logging.getLogger(__name__)


@functools.cache
def load_loops() -> ModuleType | None:
    """Load the compiled loops; None where Numba is missing, which is logged once, by the main process.

    Call it before workers are forked: they inherit the loops.
    """
    try:
        from utils.augment import numba_loops
    except ImportError as error:  # also of a Numba that does not fit the installed NumPy
        if multiprocessing.parent_process() is None:
            log.warning("numba is missing (%s): augmentation is slower; pip install numba", error)
        return None
    return numba_loops


def resize_height(image: np.ndarray, height: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to another height: cv2.resize with INTER_LINEAR, on x86 to the bit."""
    if (loops := load_loops()) is None:
        size = image.shape[1], height
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).reshape(height, *image.shape[1:])
    resized = np.empty((height, *image.shape[1:]), np.uint8)
    loops.resize_height_loop(_rows(np.ascontiguousarray(image)), _rows(resized))
    return resized


def flip_horizontal(image: np.ndarray) -> np.ndarray:
    """Flip (H, W, 3) uint8 left to right; with the compiled loops in place, if it is contiguous and not read-only."""
    if (loops := load_loops()) is None:
        return np.ascontiguousarray(image[:, ::-1])
    image = np.ascontiguousarray(image)
    flipped = image if image.flags.writeable else np.empty_like(image)
    loops.flip_horizontal_loop(_rows(image), _rows(flipped))
    return flipped


def resize_into(image: np.ndarray, window: Box, picture: np.ndarray, target: Box) -> None:
    """Resize a part of an image into a part of another, as cv2.resize with INTER_LINEAR does, to two levels.

    The difference is at most one level in photographs (docs/results.md), and two where neighbors differ as in noise.

    Args:
        image: (H, W, 3) uint8.
        window: left, top, right, bottom in pixels of `image`, within it.
        picture: (height, width, 3) uint8, contiguous, sharing no memory with `image`; it is written to.
        target: left, top, right, bottom in pixels of `picture`, within it.
    """
    if (loops := load_loops()) is None:
        (left, top, right, bottom), (x1, y1, x2, y2) = window, target
        part = cv2.resize(image[top:bottom, left:right], (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
        picture[y1:y2, x1:x2] = part.reshape(y2 - y1, x2 - x1, 3)
        return
    loops.resize_into_loop(_rows(np.ascontiguousarray(image)), window, _rows(picture), target)


def transform_boxes(
    boxes: np.ndarray,
    windows: Sequence[Box] | np.ndarray,
    targets: Sequence[Box] | np.ndarray,
    counts: Sequence[int] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Map boxes from windows to targets, clip each to its target, and drop those of which too little is left.

    Args:
        boxes: (N, 4) float32, x1 y1 x2 y2.
        windows, targets: (W, 4) left, top, right, bottom, see resize_into.
        counts: (W,) the number of boxes, in their order, that belong to each window.

    Returns:
        (M, 4) float32 boxes, at least MIN_SIDE wide and high and with at least MIN_VISIBLE of the area before clipping,
        and (N,) bool, True for the boxes that are kept.
    """
    frames = np.array((windows, targets), np.float32).reshape(2, -1, 4)
    counts = np.array(counts, np.int64)
    if (loops := load_loops()) is None:
        return _transform_boxes(boxes, *np.repeat(frames, counts, axis=1))
    clipped, visible = np.empty((len(boxes), 4), np.float32), np.empty(len(boxes), np.bool_)
    boxes = np.ascontiguousarray(boxes)
    loops.transform_boxes_loop(boxes, frames[0], frames[1], counts, MIN_SIDE, MIN_VISIBLE, clipped, visible)
    return clipped[visible], visible


def _transform_boxes(boxes: np.ndarray, window: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See transform_boxes; window and target (N, 4) float32 of each box."""
    scale = (target[:, 2:] - target[:, :2]) / (window[:, 2:] - window[:, :2])
    corners = (boxes.reshape(-1, 2, 2) - window[:, None, :2]) * scale[:, None] + target[:, None, :2]
    clipped = corners.clip(target[:, None, :2], target[:, None, 2:])
    sides = clipped[:, 1] - clipped[:, 0]
    enough = sides.prod(1) >= np.float32(MIN_VISIBLE) * (corners[:, 1] - corners[:, 0]).prod(1)
    visible = enough & (sides >= MIN_SIDE).all(1)
    return clipped[visible].reshape(-1, 4), visible


def _rows(image: np.ndarray) -> np.ndarray:
    return image.reshape(len(image), -1)
