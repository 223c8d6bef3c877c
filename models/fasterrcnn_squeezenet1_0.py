"""Faster R-CNN on SqueezeNet 1.0.

Paper: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
Weights: ImageNet, torchvision SqueezeNet1_0_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 30.0 M parameters, 36.8 GFLOPs, strides 16.
"""

from torch import nn
from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=512, strides=(16,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """SqueezeNet 1.0 up to its last map."""
    return classification_net(squeezenet1_0, SqueezeNet1_0_Weights.IMAGENET1K_V1, pretrained).features
