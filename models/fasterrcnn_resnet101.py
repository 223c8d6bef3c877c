"""Faster R-CNN on the last map of ResNet-101.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385
Weights: ImageNet, torchvision ResNet101_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 184.3 M parameters, 182.7 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import ResNet101_Weights, resnet101

from models.backbones.torchvision_nets import classification_net, without_classifier
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=2048, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-101 up to its last map."""
    return without_classifier(classification_net(resnet101, ResNet101_Weights.IMAGENET1K_V2, pretrained))
