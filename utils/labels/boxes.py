"""Boxes: the one coordinate convention, and what is done to boxes that break it.

A box is x1, y1, x2, y2 in pixels: float32, x to the right, y down, 0-based and continuous, so that the first pixel
covers [0, 1] and a whole image is 0, 0, width, height. Unless a name says otherwise the pixels are those of the
original image. Pascal VOC's 1-based inclusive corners and YOLO's center-size fractions are converted in
utils/labels/readers.py and nowhere else.
"""

import numpy as np

SWAPPED = "corners swapped"
CLIPPED = "clipped to the image"
OUTSIDE = "outside the image, dropped"
NO_AREA = "no area, dropped"
NOT_FINITE = "not a number, dropped"
DROPPED = (OUTSIDE, NO_AREA, NOT_FINITE)

_MIN_SIDE = 1e-2  # px; what is thinner vanishes when an image is resized, and torchvision refuses a box without area
_TOLERANCE = 1.0  # px; VOC files with 0-based corners, and YOLO fractions of 6 digits, pass the border by so much


def mend_boxes(boxes: np.ndarray, image_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Swap reversed corners, clip to the image, and say which boxes cannot be used.

    Args:
        boxes: (N, 4) float, x1 y1 x2 y2 in pixels.
        image_sizes: (N, 2) height and width of each box's image.

    Returns:
        mended: (N, 4) float32.
        keep: (N,) bool, False for boxes that nothing can mend.
        problems: (N,) object, one of this module's words, or "" for a good box. Passing the border by up to a pixel,
            as files of other conventions do, is clipped without a word.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    height, width = np.asarray(image_sizes, np.float64).reshape(-1, 2).T
    problems = np.full(len(boxes), "", object)

    finite = np.isfinite(boxes).all(1)
    ordered = np.where(finite[:, None], boxes, 0.0)
    low, high = np.minimum(ordered[:, :2], ordered[:, 2:]), np.maximum(ordered[:, :2], ordered[:, 2:])
    problems[(low != ordered[:, :2]).any(1)] = SWAPPED

    limit = np.stack([width, height], 1)
    problems[((low < -_TOLERANCE) | (high > limit + _TOLERANCE)).any(1)] = CLIPPED
    problems[((high - low) < _MIN_SIDE).any(1)] = NO_AREA
    mended = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1)
    visible = ((mended[:, 2:] - mended[:, :2]) >= _MIN_SIDE).all(1)
    problems[~visible & (problems != NO_AREA)] = OUTSIDE
    problems[~finite] = NOT_FINITE
    return mended.astype(np.float32), visible & finite, problems


_SAME = 0.5  # px between the corners of two boxes
_NEIGHBORS = 100  # boxes of an image and class, from left to right, that one is compared with


def repeated_boxes(images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) int64: for every box another, before it, of its image and class whose corners are as good as its; else -1.

    Args:
        images: (M,) the image of every box.
        labels: (M,)
        boxes: (M, 4) x1 y1 x2 y2 in pixels.
    """
    twin = np.full(len(boxes), -1)
    order = np.lexsort((boxes[:, 0], labels, images))
    at = np.arange(len(order))
    for step in range(1, _NEIGHBORS + 1):
        at = at[at + step < len(order)]
        one, other = order[at], order[at + step]
        near = (images[one] == images[other]) & (labels[one] == labels[other])
        near &= boxes[other, 0] - boxes[one, 0] <= _SAME
        at, one, other = at[near], one[near], other[near]
        if not len(at):
            break
        same = (np.abs(boxes[one] - boxes[other]) <= _SAME).all(1)
        twin[np.maximum(one, other)[same]] = np.minimum(one, other)[same]
    return twin
