"""Batches of images and boxes, and their collation from samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.loading.sample import Sample
from utils.loading.size_rule import padded


@dataclass(frozen=True)
class Batch:
    """B images in one padded block, and their boxes concatenated; an image without boxes has count 0.

    Only images, boxes and labels are moved to the device. Sizes and counts stay on the host, as reading them back from
    a GPU would wait for it.
    """

    images: Tensor  # (B, H, W, 3) uint8 RGB, each image at the top left, zeros to the right and below
    sizes: Tensor  # (B, 2) int64, height and width of each image in the block
    original_sizes: Tensor  # (B, 2) int64
    image_ids: Tensor  # (B,) int64, or DAMAGED
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in network pixels
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64
    faults: tuple[str, ...] = ()  # see Sample

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """Copy images, boxes and labels to `device`; asynchronous if the memory is pinned."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy images, boxes and labels to pinned memory, for asynchronous copies to a GPU."""
        return self._with(Tensor.pin_memory)

    def clone(self) -> "Batch":
        """Copy images, boxes and labels."""
        return self._with(Tensor.clone)

    def parts(self) -> dict[str, Any]:
        """All fields but the images, as NumPy arrays, which are cheap to send through a pipe."""
        values = {part.name: getattr(self, part.name) for part in fields(self)[1:]}
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}

    @classmethod
    def from_parts(cls, images: Tensor, parts: Mapping[str, Any]) -> "Batch":
        """The inverse of `parts`."""
        return cls(images, **{k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in parts.items()})

    def _with(self, change: Any) -> "Batch":
        return replace(self, images=change(self.images), boxes=change(self.boxes), labels=change(self.labels))


def block_size(images: int, height: int, width: int) -> int:
    """Size in bytes of the padded block of images."""
    return images * padded(height) * padded(width) * 3


def collate(samples: Sequence[Sample], into: np.ndarray | None = None) -> Batch:
    """Collate samples into one block, padded at the right and bottom to multiples of 32 px.

    Args:
        into: (bytes,) uint8 memory for the block, at least block_size of the samples; None allocates it.
    """
    sizes = np.array([s.image.shape[:2] for s in samples], np.int64)
    height, width = (padded(int(side)) for side in sizes.max(0))
    shape = (len(samples), height, width, 3)
    if into is None:
        into = np.empty(block_size(*shape[:3]), np.uint8)
    block = into[: block_size(*shape[:3])].reshape(shape)
    for slot, sample in zip(block, samples, strict=True):
        image_height, image_width = sample.image.shape[:2]
        slot[:image_height, :image_width] = sample.image
        slot[:image_height, image_width:] = 0
        slot[image_height:] = 0
    return Batch(
        images=torch.from_numpy(block),
        sizes=torch.from_numpy(sizes),
        original_sizes=torch.tensor([s.original_size for s in samples], dtype=torch.int64),
        image_ids=torch.tensor([s.image_id for s in samples], dtype=torch.int64),
        boxes=torch.from_numpy(np.concatenate([s.boxes for s in samples])),
        labels=torch.from_numpy(np.concatenate([s.labels for s in samples], dtype=np.int64)),
        counts=torch.tensor([len(s.boxes) for s in samples], dtype=torch.int64),
        faults=tuple(fault for sample in samples for fault in sample.faults),
    )
