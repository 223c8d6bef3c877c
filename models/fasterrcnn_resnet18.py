"""Faster R-CNN on the last map of ResNet-18.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385
Weights: ImageNet, torchvision ResNet18_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 40.4 M parameters, 42.6 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from models.backbones.torchvision_nets import classification_net, without_classifier
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=512, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-18 up to its last map."""
    return without_classifier(classification_net(resnet18, ResNet18_Weights.IMAGENET1K_V1, pretrained))
