"""Sample: one image with its boxes, before collation."""

from typing import NamedTuple

import numpy as np

DAMAGED = -1  # image id of a sample whose image cannot be decoded


class Sample(NamedTuple):
    """One image at its network size, with boxes in pixels of that size."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    original_size: tuple[int, int]  # height, width before the resize
    image_id: int  # or DAMAGED
    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2
    labels: np.ndarray  # (N,) int
    faults: tuple[str, ...] = ()  # messages about images that were replaced by others
