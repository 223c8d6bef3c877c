"""Faster R-CNN on three stages of a tiny DINOv3 ConvNeXt, each projected to 256 channels ("multifeat").

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_convnext_tiny_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 42.8 M parameters, 56.0 GFLOPs, strides 8 16 32.
"""

from torch import nn

from models.backbones.dinov3_detector import multifeat_backbone, multifeat_legacy, multifeat_spec
from models.building.build_options import BuildOptions

SPEC = multifeat_spec("convnext_tiny")
LEGACY = multifeat_legacy("convnext_tiny")


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The last three stages of the ConvNeXt, each projected to 256 channels."""
    return multifeat_backbone("convnext_tiny", pretrained)
