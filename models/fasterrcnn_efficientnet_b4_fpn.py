"""Faster R-CNN on EfficientNet-B4 with a feature pyramid.

Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision EfficientNet_B4_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 33.9 M parameters, 66.6 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import EfficientNet_B4_Weights, efficientnet_b4

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import EFFICIENTNET_STAGES, classification_net, efficientnet_with_fpn
from models.building.build_options import BuildOptions

SPEC = pyramid_spec(EFFICIENTNET_STAGES)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """EfficientNet-B4 with a feature pyramid."""
    return efficientnet_with_fpn(classification_net(efficientnet_b4, EfficientNet_B4_Weights.IMAGENET1K_V1, pretrained))
