"""Faster R-CNN on a base DINOv3 vision transformer, patches of 16 px, with a simple feature pyramid.

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_vitb16_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 105.8 M parameters, 247.0 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones.dinov3_detector import vit_backbone, vit_legacy, vit_spec
from models.building.build_options import BuildOptions

SPEC = vit_spec("vitb16")
LEGACY = vit_legacy("vitb16")


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The vision transformer with a simple feature pyramid."""
    return vit_backbone("vitb16", pretrained)
