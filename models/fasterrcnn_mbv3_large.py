"""Faster R-CNN on the last map of MobileNetV3-Large.

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: ImageNet, torchvision MobileNet_V3_Large_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 60.7 M parameters, 54.4 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=960, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """MobileNetV3-Large up to its last map."""
    return classification_net(mobilenet_v3_large, MobileNet_V3_Large_Weights.IMAGENET1K_V2, pretrained).features
