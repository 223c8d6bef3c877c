"""The declaration of a backbone, from which models/building/builder.py derives anchors, RoI pooling and heads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, side of a square anchor; FPN paper section 4.1
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
FPN_CHANNELS = 256

Stages = tuple[tuple[str, ...], ...]  # groups of parameter-name prefixes, from the image on


@dataclass(frozen=True)
class BackboneSpec:
    """Feature maps of a backbone, and the defaults of the detector on it."""

    out_channels: int
    strides: tuple[int, ...]  # px per cell of each map that regions are pooled from, finest first
    extra_levels: int = 0  # coarser maps that only the RPN reads, each of twice the stride
    one_anchor_size_per_level: bool = False  # divide the anchor sizes among the levels; False: each level has all five
    head_width: int = 1024
    rpn_convs: int = 1
    head: Callable[[int, int], nn.Module] | None = None  # (channels, width) -> box head, instead of two linear layers
    detector: Mapping[str, Any] | None = None  # defaults for arguments of torchvision's FasterRCNN
    stages: Stages | None = None  # groups that can be frozen; None: the children of an nn.Sequential
    frozen_stages: int = 0  # frozen in a start from published weights
    frozen_norm: bool = False  # batch norms are frozen in a start from published weights

    @property
    def levels(self) -> tuple[int, ...]:
        """Strides of all maps with anchors."""
        return self.strides + tuple(self.strides[-1] * 2 ** (i + 1) for i in range(self.extra_levels))
