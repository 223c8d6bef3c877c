"""Random sampling of the anchors and proposals that enter a loss, for all images at once."""

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
class SampledIndices:
    """Indices of the samples of each image, positives first."""

    index: Tensor  # (B, S) int64
    positive: Tensor  # (B, S) bool
    sampled: Tensor  # (B, S) bool; False: padding


def random_priorities(labels: Tensor, widths: Sequence[int]) -> Tensor:
    """Draw from torch's generator of the device."""
    del widths
    return torch.rand(labels.shape, device=labels.device)


def fixed_priorities(labels: Tensor, widths: Sequence[int]) -> Tensor:
    """Priorities that are the same for every image, device and batch; torch's generators are not used.

    The priority of an index of a part does not depend on the widths of the parts, which vary with the batch.
    """
    return _fixed_priorities(tuple(widths), labels.device).expand_as(labels)


@functools.lru_cache(64)
def _fixed_priorities(widths: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # tensors made in inference mode cannot take part in gradients
        parts = [torch.rand(n, generator=torch.Generator().manual_seed(_SEED + i)) for i, n in enumerate(widths)]
        return torch.cat(parts).to(device)


def sample_balanced(labels: Tensor, rule: BalancedPositiveNegativeSampler, priorities: Tensor) -> SampledIndices:
    """Sample as many positives and negatives of each image as torchvision's sampler: those of the highest priorities.

    Args:
        labels: (B, N): at least 1 positive, 0 negative, below 0 neither.
        priorities: (B, N) from 0 to 1.
    """
    size = min(rule.batch_size_per_image, labels.shape[1])
    most = min(int(rule.batch_size_per_image * rule.positive_fraction), labels.shape[1])
    positive, negative = labels >= 1, labels == 0
    _, positives = torch.where(positive, priorities, -1).topk(most)
    _, negatives = torch.where(negative, priorities, -1).topk(size)
    first = positive.sum(1, keepdim=True).clamp(max=most)
    second = torch.minimum(negative.sum(1, keepdim=True), rule.batch_size_per_image - first)
    slot = torch.arange(size, device=labels.device).expand(len(labels), -1)
    index = torch.cat([positives, negatives], 1).gather(1, torch.where(slot < first, slot, slot - first + most))
    return SampledIndices(index, slot < first, slot < first + second)
