"""Faster R-CNN on ViTDet with a tiny vision transformer, 192 channels wide, and a simple feature pyramid.

Paper: Li et al. 2022, https://arxiv.org/abs/2203.16527
Weights: none, random.
Cost: 22.9 M parameters, 74.8 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones import vitdet
from models.building.build_options import BuildOptions

SPEC = vitdet.SPEC


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """A tiny vision transformer with a simple feature pyramid; random weights, whatever `pretrained` is."""
    return vitdet.vitdet_backbone(channels=192, heads=3)
