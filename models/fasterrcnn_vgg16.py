"""Faster R-CNN on the last map of VGG-16 with batch norm.

Paper: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556
Weights: ImageNet, torchvision VGG16_BN_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 44.0 M parameters, 153.1 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import VGG16_BN_Weights, vgg16_bn

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=512, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """VGG-16 with batch norm up to its last map."""
    return classification_net(vgg16_bn, VGG16_BN_Weights.IMAGENET1K_V1, pretrained).features
