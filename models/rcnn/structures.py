"""Boxes and objects of a batch, padded to one shape, with masks of the valid rows.

On a GPU every shape then depends on shapes alone, and the host never waits for a number. On a CPU waiting costs nothing
and computing does, so there the padding is left out; `static_shapes` of the RPN and the RoI heads selects one of both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class UintBatch(Protocol):
    """The fields of a batch that the detector reads; docs/architecture.md describes them."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, H and W multiples of 32, each image at the top left
    sizes: Tensor  # (B, 2) int64 on the host, height and width of each image in the batch
    original_sizes: Tensor  # (B, 2) int64 on the host, before the resize
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in pixels of the batch
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64 on the host


@dataclass(frozen=True)
class PaddedBoxes:
    """Boxes of each image; the rows after the last one are padding."""

    boxes: Tensor  # (B, P, 4) float32 x1 y1 x2 y2 in pixels of the batch
    valid: Tensor  # (B, P) bool

    def joined(self, other: "PaddedBoxes") -> "PaddedBoxes":
        """These boxes followed by those of `other`."""
        return PaddedBoxes(torch.cat([self.boxes, other.boxes], 1), torch.cat([self.valid, other.valid], 1))

    def fill_empty(self, bounds: Tensor) -> "PaddedBoxes":
        """These boxes; for an image without any, the whole image; `bounds` (B, 4), see image_bounds()."""
        none = ~self.valid.any(1, keepdim=True)
        first = none & (torch.arange(self.valid.shape[1], device=none.device) == 0)
        whole = torch.cat([torch.zeros_like(bounds[:, :2]), bounds[:, 2:]], 1)
        return PaddedBoxes(torch.where(first[..., None], whole[:, None], self.boxes), self.valid | first)

    def lists(self) -> list[Tensor]:
        """The valid boxes of each image, (N, 4); waits for a GPU."""
        return [boxes[:count] for boxes, count in zip(self.boxes, self.valid.sum(1).tolist(), strict=True)]

    @classmethod
    def of_lists(cls, boxes: Sequence[Tensor]) -> "PaddedBoxes":
        """The inverse of `lists`."""
        counts = torch.tensor([len(b) for b in boxes])
        block = stack_padded(boxes)
        return cls(block, (torch.arange(block.shape[1]) < counts[:, None]).to(block.device))


@dataclass(frozen=True)
class GroundTruth(PaddedBoxes):
    """The objects of each image; at least one row per image, which may be padding."""

    labels: Tensor  # (B, G) int64, 0 for padding

    @classmethod
    def of_targets(cls, targets: Sequence[Mapping[str, Tensor]]) -> "GroundTruth":
        """From torchvision's targets: per image boxes (N, 4) and labels (N,)."""
        regions = PaddedBoxes.of_lists([target["boxes"] for target in targets])
        return cls(regions.boxes, regions.valid, stack_padded([target["labels"] for target in targets]))

    @classmethod
    def pad(cls, boxes: Tensor, labels: Tensor, slots: Tensor) -> "GroundTruth":
        """From boxes (N, 4) and labels (N,) of all images, and the row of each slot, (B, G) int64; N: padding."""
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
        return cls(boxes[slots], slots < len(labels) - 1, labels[slots])


def gt_slots(counts: Tensor) -> Tensor:
    """The row of each slot, (B, G) int64 on the host, from (B,) counts; padding has their sum."""
    slots = torch.arange(max(1, int(counts.max())))
    return torch.where(slots < counts[:, None], (counts.cumsum(0) - counts)[:, None] + slots, counts.sum())


def stack_padded(values: Sequence[Tensor]) -> Tensor:
    """Stack (N, ...) tensors of different N, padded with zeros to the largest N, at least 1."""
    most = max(1, *(len(v) for v in values))
    return torch.stack([F.pad(v, (0, 0) * (v.ndim - 1) + (0, most - len(v))) for v in values])
