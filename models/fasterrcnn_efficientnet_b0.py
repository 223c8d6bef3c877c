"""Faster R-CNN on the last map of EfficientNet-B0.

Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946
Weights: ImageNet, torchvision EfficientNet_B0_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 84.2 M parameters, 74.5 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import EfficientNet_B0_Weights, efficientnet_b0

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=1280, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """EfficientNet-B0 up to its last map."""
    return classification_net(efficientnet_b0, EfficientNet_B0_Weights.IMAGENET1K_V1, pretrained).features
