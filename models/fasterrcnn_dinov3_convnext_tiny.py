"""Faster R-CNN on a tiny DINOv3 ConvNeXt with a feature pyramid.

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_convnext_tiny_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 45.1 M parameters, 91.8 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones.dinov3_detector import convnext_backbone, convnext_legacy, convnext_spec
from models.building.build_options import BuildOptions

SPEC = convnext_spec("convnext_tiny")
LEGACY = convnext_legacy("convnext_tiny")


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The ConvNeXt with a feature pyramid."""
    return convnext_backbone("convnext_tiny", pretrained)
