"""Which anchors and proposals a loss is taken over, where it measures and does not train."""

import copy
from typing import TypeVar

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

Owner = TypeVar("Owner", RegionProposalNetwork, RoIHeads)

_SEED = 0


class SteadySampler(BalancedPositiveNegativeSampler):
    """As many as torchvision's takes, by a generator that starts anew for each image.

    What it takes of an image depends on that image's labels alone, on every device, and torch's own generators, from
    which training draws, stay as they are.
    """

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See BalancedPositiveNegativeSampler: masks of positives and negatives, image by image."""
        masks = [self._of_image(labels) for labels in matched_idxs]
        return [positive for positive, _ in masks], [negative for _, negative in masks]

    def _of_image(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(_SEED)
        most = int(self.batch_size_per_image * self.positive_fraction)
        positive = _some_of(labels >= 1, most, rng)
        return positive, _some_of(labels == 0, self.batch_size_per_image - int(positive.sum()), rng)


def _some_of(mask: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """A mask of `count` places of a mask, or of all if it has fewer: uint8, as torchvision's."""
    places = mask.nonzero().squeeze(1)
    chosen = torch.randperm(len(places), generator=rng)[:count].to(places.device)
    some = torch.zeros_like(mask, dtype=torch.uint8)
    some[places[chosen]] = 1
    return some


def steady(owner: Owner) -> Owner:
    """The same part of a detector, parameters shared, but for its sampler, which is steady; the part is not changed."""
    twin, sampler = copy.copy(owner), owner.fg_bg_sampler
    twin.fg_bg_sampler = SteadySampler(sampler.batch_size_per_image, sampler.positive_fraction)
    return twin
