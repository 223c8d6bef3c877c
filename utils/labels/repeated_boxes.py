"""Boxes that a label file has more than once."""

import numpy as np

_SAME = 0.5  # px between the corners of two boxes
_NEIGHBOURS = 100  # boxes of an image and class, from left to right, that one is compared with


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
    for step in range(1, _NEIGHBOURS + 1):
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
