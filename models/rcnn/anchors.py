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
        self._cache: dict[tuple, list[Tensor]] = {}

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """See AnchorGenerator; `dtype` is that of the features."""
        del dtype
        super().set_cell_anchors(torch.float32, device)

    def for_batch(self, size: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of each map, (cells x anchors per cell, 4) float32, for a batch of this padded height and width."""
        grids = [tuple(m.shape[-2:]) for m in maps]
        key = (*size, *grids, maps[0].device)
        if key not in self._cache:
            while len(self._cache) >= _MOST_SHAPES:
                del self._cache[next(iter(self._cache))]
            with torch.inference_mode(False):  # tensors made in inference mode cannot be used in training
                self._cache[key] = self.compute(size, grids, maps[0].device)
        return self._cache[key]

    def cached(self, size: Sequence[int]) -> list[list[Tensor]]:
        """The results of for_batch() for batches of this size that are still cached."""
        return [anchors for key, anchors in self._cache.items() if key[:2] == tuple(size)]

    def compute(self, size: Sequence[int], grids: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        """As for_batch(), without the cache."""
        self.set_cell_anchors(torch.float32, device)
        strides = [[side // cells for side, cells in zip(size, grid, strict=True)] for grid in grids]
        return self.grid_anchors(grids, strides)
