"""Anchors, computed once for each shape of the maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

_MOST_SHAPES = 32  # kept: 4 MB each at 800 x 1333 px with five levels


class Float32Anchors(AnchorGenerator):
    """Anchors in fp32 whatever the features are: corners of large images in bfloat16 are up to 7 px off."""

    def __init__(self, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]]) -> None:
        super().__init__(sizes, aspect_ratios)
        self._known: dict[tuple, list[Tensor]] = {}

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """See AnchorGenerator; `dtype` is that of the features."""
        del dtype
        super().set_cell_anchors(torch.float32, device)

    def of_block(self, size: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor]:
        """Of each map (cells x anchors per cell, 4) float32, for images in a block of this height and width."""
        grids = [tuple(m.shape[-2:]) for m in maps]
        key = (*size, *grids, maps[0].device)
        if key not in self._known:
            while len(self._known) >= _MOST_SHAPES:
                del self._known[next(iter(self._known))]
            with torch.inference_mode(False):  # or training could not use what evaluation computed first
                self._known[key] = self.computed(size, grids, maps[0].device)
        return self._known[key]

    def known(self, size: Sequence[int]) -> list[list[Tensor]]:
        """What of_block() has computed for blocks of this size, and keeps for now."""
        return [anchors for key, anchors in self._known.items() if key[:2] == tuple(size)]

    def computed(self, size: Sequence[int], grids: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        """As of_block, computed anew."""
        self.set_cell_anchors(torch.float32, device)
        strides = [[side // cells for side, cells in zip(size, grid, strict=True)] for grid in grids]
        return self.grid_anchors(grids, strides)
