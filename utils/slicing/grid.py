"""The windows in which a large image is looked at piece by piece: SAHI's grid (https://github.com/obss/sahi)."""

from dataclasses import dataclass

import numpy as np

from utils.errors import UserError

_MOST_WINDOWS = 20_000  # of an image; more are a slip of a finger


@dataclass(frozen=True)
class Slices:
    """Windows of height x width px that overlap by a share of their sides; the last ones are shifted inside."""

    height: int = 512
    width: int = 512
    overlap_height: float = 0.2  # at least 0, below 1
    overlap_width: float = 0.2

    def windows(self, height: int, width: int) -> np.ndarray:
        """(N, 4) int64 left, top, right and bottom, row by row, for an image of this height and width.

        They cover it. The one window of an image that is no larger than a slice is the whole of it.

        Raises:
            UserError: there are too many.
        """
        tops = _starts(height, self.height, self.overlap_height)
        lefts = _starts(width, self.width, self.overlap_width)
        count = len(tops) * len(lefts)
        if count > _MOST_WINDOWS:
            raise UserError(
                f"an image of {width} x {height} px has {count:,} slices of {self.width} x {self.height} px, "
                f"of at most {_MOST_WINDOWS:,}: raise --slice-width and --slice-height, or lower the overlap"
            )
        top, left = (starts.reshape(-1) for starts in np.meshgrid(tops, lefts, indexing="ij"))
        right, bottom = np.minimum(left + self.width, width), np.minimum(top + self.height, height)
        return np.stack([left, top, right, bottom], 1)

    def __str__(self) -> str:
        overlaps = f"{self.overlap_height:g} of the height and {self.overlap_width:g} of the width"
        return f"{self.width} x {self.height} px, overlapping by {overlaps}"


def _starts(length: int, size: int, overlap: float) -> np.ndarray:
    """First pixels of the windows along one side."""
    step = size - int(overlap * size)
    last = max(0, length - size)
    return np.minimum(np.arange(-(-last // step) + 1, dtype=np.int64) * step, last)
