"""Faster R-CNN on the last map of ConvNeXt-Tiny.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545
Weights: ImageNet, torchvision ConvNeXt_Tiny_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 72.9 M parameters, 78.2 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import ConvNeXt_Tiny_Weights, convnext_tiny

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=768, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ConvNeXt-Tiny up to its last map."""
    return classification_net(convnext_tiny, ConvNeXt_Tiny_Weights.IMAGENET1K_V1, pretrained).features
