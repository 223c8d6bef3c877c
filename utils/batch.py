"""The one form in which images and boxes go from disk to the detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.size_rule import padded


class Sample(NamedTuple):
    """One image at its network size, with its boxes in that size's pixels."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    original_size: tuple[int, int]  # height, width before the resize
    image_id: int
    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2
    labels: np.ndarray  # (N,) int


@dataclass(frozen=True)
class Batch:
    """B images in one block, with their boxes one after the other; an image without boxes has count 0.

    Only images, boxes and labels go to the device: sizes and counts steer the host's side of the detector, and reading
    them back from a GPU would wait for it.
    """

    images: Tensor  # (B, H, W, 3) uint8 RGB, each image at the top left, zeros to the right and below
    sizes: Tensor  # (B, 2) int64, height and width of each image in the block
    original_sizes: Tensor  # (B, 2) int64
    image_ids: Tensor  # (B,) int64
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in network pixels
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with images, boxes and labels on `device`; the copy does not wait when memory is pinned."""
        moved = (t.to(device, non_blocking=True) for t in (self.images, self.boxes, self.labels))
        images, boxes, labels = moved
        return Batch(images, self.sizes, self.original_sizes, self.image_ids, boxes, labels, self.counts)

    def pin_memory(self) -> "Batch":
        """Called by the data loader, so that copies to a GPU need not wait."""
        images, boxes, labels = (t.pin_memory() for t in (self.images, self.boxes, self.labels))
        return Batch(images, self.sizes, self.original_sizes, self.image_ids, boxes, labels, self.counts)

    def __reduce__(self) -> tuple[Any, ...]:
        # From a worker, the block goes through shared memory; a handle for each small tensor would cost 50 us apiece.
        small = (self.sizes, self.original_sizes, self.image_ids, self.boxes, self.labels, self.counts)
        return _unpack, (self.images, *(t.numpy() for t in small))


def _unpack(images: Tensor, *small: np.ndarray) -> Batch:
    return Batch(images, *(torch.from_numpy(a) for a in small))


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples into one block, padded right and below to multiples of 32 px."""
    sizes = np.array([s.image.shape[:2] for s in samples], np.int64)
    height, width = (padded(int(side)) for side in sizes.max(0))
    images = torch.zeros((len(samples), height, width, 3), dtype=torch.uint8)
    block = images.numpy()
    for slot, sample in zip(block, samples, strict=True):
        slot[: sample.image.shape[0], : sample.image.shape[1]] = sample.image
    return Batch(
        images=images,
        sizes=torch.from_numpy(sizes),
        original_sizes=torch.tensor([s.original_size for s in samples], dtype=torch.int64),
        image_ids=torch.tensor([s.image_id for s in samples], dtype=torch.int64),
        boxes=torch.from_numpy(np.concatenate([s.boxes for s in samples])),
        labels=torch.from_numpy(np.concatenate([s.labels for s in samples], dtype=np.int64)),
        counts=torch.tensor([len(s.boxes) for s in samples], dtype=torch.int64),
    )
