"""Faster R-CNN on ConvNeXt-Tiny with a feature pyramid.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ConvNeXt_Tiny_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 45.1 M parameters, 91.8 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import ConvNeXt_Tiny_Weights, convnext_tiny

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import CONVNEXT_STAGES, classification_net, convnext_with_fpn
from models.building.build_options import BuildOptions

SPEC = pyramid_spec(CONVNEXT_STAGES)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ConvNeXt-Tiny with a feature pyramid."""
    return convnext_with_fpn(classification_net(convnext_tiny, ConvNeXt_Tiny_Weights.IMAGENET1K_V1, pretrained))
