"""Faster R-CNN on the last map of ConvNeXt-Small.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545
Weights: ImageNet, torchvision ConvNeXt_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 94.5 M parameters, 112.7 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import ConvNeXt_Small_Weights, convnext_small

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=768, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ConvNeXt-Small up to its last map."""
    return classification_net(convnext_small, ConvNeXt_Small_Weights.IMAGENET1K_V1, pretrained).features
