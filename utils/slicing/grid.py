"""SAHI's grid of overlapping windows over a large image (https://github.com/obss/sahi)."""

from dataclasses import dataclass

import numpy as np

from utils.errors import UserError

_MAX_WINDOWS = 20_000  # per image; more is taken for a typing error


@dataclass(frozen=True)
class Slices:
    """Grid of height x width px windows that overlap by a fraction of their sides; the last ones are shifted inside."""

    height: int = 512
    width: int = 512
    overlap_height: float = 0.2  # at least 0, below 1
    overlap_width: float = 0.2

    def windows(self, height: int, width: int) -> np.ndarray:
        """Compute the windows of an image: (N, 4) int64 left, top, right and bottom, row by row.

        The windows cover the image. An image no larger than a slice has one window, the whole image.

        Raises:
            UserError: there are more than 20,000 windows.
        """
        tops = _starts(height, self.height, self.overlap_height)
        lefts = _starts(width, self.width, self.overlap_width)
        count = len(tops) * len(lefts)
        if count > _MAX_WINDOWS:
            raise UserError(
                f"an image of {width} x {height} px has {count:,} slices of {self.width} x {self.height} px "
                f"(limit {_MAX_WINDOWS:,}): raise --slice-width and --slice-height, or lower the overlap"
            )
        top, left = (starts.reshape(-1) for starts in np.meshgrid(tops, lefts, indexing="ij"))
        right, bottom = np.minimum(left + self.width, width), np.minimum(top + self.height, height)
        return np.stack([left, top, right, bottom], 1)

    def __str__(self) -> str:
        overlaps = f"{self.overlap_height:g} of the height and {self.overlap_width:g} of the width"
        return f"{self.width} x {self.height} px, overlapping by {overlaps}"


def _starts(length: int, size: int, overlap: float) -> np.ndarray:
    """Compute the first pixel of each window along one side."""
    step = size - int(overlap * size)
    last = max(0, length - size)
    return np.minimum(np.arange(-(-last // step) + 1, dtype=np.int64) * step, last)
