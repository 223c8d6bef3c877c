"""Faster R-CNN on VGG-16 with batch norm and a feature pyramid.

Paper: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision VGG16_BN_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 32.1 M parameters, 182.4 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn
from torchvision.models import VGG16_BN_Weights, vgg16_bn

from models.backbones.fpn import pyramid_spec, with_fpn
from models.backbones.torchvision_nets import classification_net
from models.building.build_options import BuildOptions

MAPS = {"22": 256, "32": 512, "42": 512, "43": 512}  # before the last three pools, and after the last
STAGES = ((0, 1, 3, 4), (7, 8, 10, 11), range(14, 23), range(24, 33), range(34, 43))  # between pools
SPEC = pyramid_spec(STAGES, frozen_stages=2)  # Fast R-CNN, https://arxiv.org/abs/1504.08083, section 4.5


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """VGG-16 with batch norm and a feature pyramid."""
    return with_fpn(classification_net(vgg16_bn, VGG16_BN_Weights.IMAGENET1K_V1, pretrained).features, MAPS)
