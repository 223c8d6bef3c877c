"""Faster R-CNN on ConvNeXt-Small with a feature pyramid.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ConvNeXt_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 66.8 M parameters, 126.4 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import ConvNeXt_Small_Weights, convnext_small

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import CONVNEXT_STAGES, classification_net, convnext_with_fpn
from models.building.build_options import BuildOptions

SPEC = pyramid_spec(CONVNEXT_STAGES)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ConvNeXt-Small with a feature pyramid."""
    return convnext_with_fpn(classification_net(convnext_small, ConvNeXt_Small_Weights.IMAGENET1K_V1, pretrained))
