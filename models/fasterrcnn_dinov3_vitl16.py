"""Faster R-CNN on a large DINOv3 vision transformer, patches of 16 px, with a simple feature pyramid.

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_vitl16_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 325.6 M parameters, 680.0 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones.dinov3_detector import vit_backbone, vit_legacy, vit_spec
from models.building.build_options import BuildOptions

SPEC = vit_spec("vitl16")
LEGACY = vit_legacy("vitl16")


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The vision transformer with a simple feature pyramid."""
    return vit_backbone("vitl16", pretrained)
