"""Boxes for non-maximum suppression, and which of them torchvision keeps."""

import torch
from torch import Tensor
from torchvision.ops import nms


def chain(count: int) -> Tensor:
    """Boxes of which each overlaps with its neighbors alone: the fate of the last hangs on all others."""
    left = torch.arange(count) * 4.0
    return torch.stack([left, torch.zeros(count), left + 10, torch.full((count,), 10.0)], 1)


def crowded(count: int, sets: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    low = torch.rand(sets, count, 2) * 100
    return torch.cat([low, low + 5 + torch.rand(sets, count, 2) * 60], 2), torch.rand(sets, count) < 0.9


def kept_by_torchvision(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    kept = torch.zeros_like(valid)
    for of_set, mask, row in zip(boxes, valid, kept, strict=True):
        places = mask.nonzero().squeeze(1)
        scores = torch.linspace(1, 0.5, len(places))
        row[places[nms(of_set[places], scores, threshold)]] = True
    return kept
