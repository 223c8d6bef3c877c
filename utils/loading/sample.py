"""One image on its way to the detector."""

from typing import NamedTuple

import numpy as np

DAMAGED = -1  # image id of a sample whose image cannot be decoded


class Sample(NamedTuple):
    """One image at its network size, with its boxes in that size's pixels."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    original_size: tuple[int, int]  # height, width before the resize
    image_id: int  # or DAMAGED
    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2
    labels: np.ndarray  # (N,) int
    faults: tuple[str, ...] = ()  # what was wrong with images that others stand in for
