"""Which anchors and proposals a loss is taken over, for all images at once."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

# (B, N) labels, widths of the parts that N is made of -> (B, N) float32 from 0 to 1; the highest are taken
Priorities = Callable[[Tensor, Sequence[int]], Tensor]
_SEED = 0


@dataclass(frozen=True)
class Sample:
    """Places that were taken of each image, positives first."""

    index: Tensor  # (B, S) int64
    positive: Tensor  # (B, S) bool
    taken: Tensor  # (B, S) bool; the others fill up


def random_priorities(labels: Tensor, widths: Sequence[int]) -> Tensor:
    """From torch's own generator of the device."""
    del widths
    return torch.rand(labels.shape, device=labels.device)


def fixed_priorities(labels: Tensor, widths: Sequence[int]) -> Tensor:
    """The same for every image and on every device; torch's own generators stay as they are.

    A place of a part has its key however wide the parts are: which, its batch decides.
    """
    return _steady(tuple(widths), labels.device).expand_as(labels)


@functools.lru_cache(64)
def _steady(widths: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or gradients could not be asked for of what evaluation drew
        parts = [torch.rand(n, generator=torch.Generator().manual_seed(_SEED + i)) for i, n in enumerate(widths)]
        return torch.cat(parts).to(device)


def sampled(labels: Tensor, rule: BalancedPositiveNegativeSampler, keys: Tensor) -> Sample:
    """As many positives and negatives of each image as torchvision's sampler takes: those of the highest keys.

    Args:
        labels: (B, N): at least 1 positive, 0 negative, below 0 neither.
        keys: (B, N) from 0 to 1.
    """
    size = min(rule.batch_size_per_image, labels.shape[1])
    most = min(int(rule.batch_size_per_image * rule.positive_fraction), labels.shape[1])
    positive, negative = labels >= 1, labels == 0
    _, positives = torch.where(positive, keys, -1).topk(most)
    _, negatives = torch.where(negative, keys, -1).topk(size)
    first = positive.sum(1, keepdim=True).clamp(max=most)
    second = torch.minimum(negative.sum(1, keepdim=True), rule.batch_size_per_image - first)
    slot = torch.arange(size, device=labels.device).expand(len(labels), -1)
    index = torch.cat([positives, negatives], 1).gather(1, torch.where(slot < first, slot, slot - first + most))
    return Sample(index, slot < first, slot < first + second)
