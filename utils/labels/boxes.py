"""Box coordinates: the one convention, repair of boxes that break it, and repeated boxes.

A box is x1, y1, x2, y2 in pixels: float32, x to the right, y down, 0-based and continuous, so that the first pixel
covers [0, 1] and a whole image is 0, 0, width, height. Pixels are those of the original image unless a name says
otherwise. Pascal VOC's 1-based inclusive corners and YOLO's center-size fractions are converted in
utils/labels/readers.py and nowhere else.
"""

import numpy as np

SWAPPED = "corners swapped"
CLIPPED = "clipped to the image"
OUTSIDE = "outside the image, dropped"
NO_AREA = "no area, dropped"
NOT_FINITE = "not a number, dropped"
DROPPED = (OUTSIDE, NO_AREA, NOT_FINITE)

MIN_VISIBLE = 0.25  # share of a box's area that must remain after a crop, or the box is dropped
MIN_SIDE = 2.0  # px, and both its sides must have this length
_MIN_LABEL_SIDE = 0.01  # px; a thinner box vanishes when resized, and torchvision refuses boxes without area
_TOLERANCE = 1.0  # px beyond the border, as VOC files with 0-based corners and YOLO fractions of 6 digits have it


def repair_boxes(boxes: np.ndarray, image_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Swap reversed corners, clip to the image, and mark boxes that cannot be used.

    Args:
        boxes: (N, 4) float, x1 y1 x2 y2 in pixels.
        image_sizes: (N, 2) height and width of each box's image.

    Returns:
        repaired: (N, 4) float32.
        keep: (N,) bool, False for boxes that cannot be repaired.
        problems: (N,) object, one of this module's constants, or "" for a good box. Boxes up to a pixel beyond the
            border, as files of other conventions have them, are clipped without a problem.
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
    problems[((high - low) < _MIN_LABEL_SIDE).any(1)] = NO_AREA
    repaired = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1)
    visible = ((repaired[:, 2:] - repaired[:, :2]) >= _MIN_LABEL_SIDE).all(1)
    problems[~visible & (problems != NO_AREA)] = OUTSIDE
    problems[~finite] = NOT_FINITE
    return repaired.astype(np.float32), visible & finite, problems


_SAME = 0.5  # px between corresponding corners of two boxes
_NEIGHBORS = 100  # following boxes of an image and class, from left to right, that each is compared with


def repeated_boxes(images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Find repeated boxes: an earlier box of the same image and class with nearly equal corners.

    Args:
        images: (M,) image of every box.
        labels: (M,) class of every box.
        boxes: (M, 4) x1 y1 x2 y2 in pixels.

    Returns:
        (M,) int64, row of the earlier box, or -1.
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
