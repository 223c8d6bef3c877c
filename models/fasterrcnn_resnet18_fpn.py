"""Faster R-CNN on ResNet-18 with a feature pyramid.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ResNet18_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 28.4 M parameters, 69.9 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import RESNET_STAGES, classification_net, resnet_with_fpn
from models.building.build_options import BuildOptions

SPEC = pyramid_spec(RESNET_STAGES, frozen_stages=2)  # as torchvision's detectors on ResNet-50


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-18 with a feature pyramid."""
    return resnet_with_fpn(classification_net(resnet18, ResNet18_Weights.IMAGENET1K_V1, pretrained))
