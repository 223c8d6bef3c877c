"""Faster R-CNN on the last map of EfficientNet-B4.

Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946
Weights: ImageNet, torchvision EfficientNet_B4_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 137.7 M parameters, 114.9 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import EfficientNet_B4_Weights, efficientnet_b4

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=1792, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """EfficientNet-B4 up to its last map."""
    return classification_net(efficientnet_b4, EfficientNet_B4_Weights.IMAGENET1K_V1, pretrained).features
