"""Faster R-CNN on ResNet-101 with a feature pyramid.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ResNet101_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 60.4 M parameters, 121.1 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import ResNet101_Weights, resnet101

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import RESNET_STAGES, classification_net, resnet_with_fpn
from models.building.build_options import BuildOptions

SPEC = pyramid_spec(RESNET_STAGES, frozen_stages=2)  # as torchvision's detectors on ResNet-50


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-101 with a feature pyramid."""
    return resnet_with_fpn(classification_net(resnet101, ResNet101_Weights.IMAGENET1K_V2, pretrained))
