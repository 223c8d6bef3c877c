"""What an image has different numbers of, as tensors of one shape for the batch, with masks of what is there.

On a GPU every shape then follows from shapes alone, and the host never waits to hear a number. On a CPU waiting costs
nothing and computing does, so there the rows that are not there are left out; `fixed` says which way a part works.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class UintBatch(Protocol):
    """What the detector reads of a batch; docs/architecture.md describes the form."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, H and W multiples of 32, each image at the top left
    sizes: Tensor  # (B, 2) int64 on the host, height and width of each image in the block
    original_sizes: Tensor  # (B, 2) int64 on the host, before the resize
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in pixels of the block
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64 on the host


@dataclass(frozen=True)
class PaddedBoxes:
    """Boxes that differ in number, filled up at the end of each image with boxes of no meaning."""

    boxes: Tensor  # (B, P, 4) float32 x1 y1 x2 y2 in pixels of the block
    valid: Tensor  # (B, P) bool

    def joined(self, other: "PaddedBoxes") -> "PaddedBoxes":
        """These, and then those of `other`."""
        return PaddedBoxes(torch.cat([self.boxes, other.boxes], 1), torch.cat([self.valid, other.valid], 1))

    def or_whole_images(self, limits: Tensor) -> "PaddedBoxes":
        """These; and the whole image, of limits (B, 4), for each that has none."""
        none = ~self.valid.any(1, keepdim=True)
        first = none & (torch.arange(self.valid.shape[1], device=none.device) == 0)
        whole = torch.cat([torch.zeros_like(limits[:, :2]), limits[:, 2:]], 1)
        return PaddedBoxes(torch.where(first[..., None], whole[:, None], self.boxes), self.valid | first)

    def lists(self) -> list[Tensor]:
        """Per image (N, 4); waits for a GPU."""
        return [boxes[:count] for boxes, count in zip(self.boxes, self.valid.sum(1).tolist(), strict=True)]

    @classmethod
    def of_lists(cls, boxes: Sequence[Tensor]) -> "PaddedBoxes":
        """The inverse of `lists`."""
        counts = torch.tensor([len(b) for b in boxes])
        block = stacked(boxes)
        return cls(block, (torch.arange(block.shape[1]) < counts[:, None]).to(block.device))


@dataclass(frozen=True)
class GroundTruth(PaddedBoxes):
    """The objects of each image, at least one place for each image."""

    labels: Tensor  # (B, G) int64, 0 where there is no object

    @classmethod
    def of_targets(cls, targets: Sequence[Mapping[str, Tensor]]) -> "GroundTruth":
        """Of torchvision's form: per image boxes (N, 4) and labels (N,)."""
        regions = PaddedBoxes.of_lists([target["boxes"] for target in targets])
        return cls(regions.boxes, regions.valid, stacked([target["labels"] for target in targets]))

    @classmethod
    def gathered(cls, boxes: Tensor, labels: Tensor, places: Tensor) -> "GroundTruth":
        """Of boxes (N, 4) and labels (N,) of all images, and the row of each place, (B, G) int64, N for none."""
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
        return cls(boxes[places], places < len(labels) - 1, labels[places])


def gt_slots(counts: Tensor) -> Tensor:
    """(B, G) int64 on the host: the row that each place of a block has, from (B,) counts; their sum for none."""
    slots = torch.arange(max(1, int(counts.max())))
    return torch.where(slots < counts[:, None], (counts.cumsum(0) - counts)[:, None] + slots, counts.sum())


def stacked(values: Sequence[Tensor]) -> Tensor:
    """One block of (N, ...) tensors of different N, at least one row each, zeros at the end."""
    most = max(1, *(len(v) for v in values))
    return torch.stack([F.pad(v, (0, 0) * (v.ndim - 1) + (0, most - len(v))) for v in values])
