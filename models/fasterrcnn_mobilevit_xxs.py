"""Faster R-CNN on the last map of MobileViT-XXS.

Paper: Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178
Weights: ImageNet, mobilevit_xxs.pt of Apple's CVNets (Apple sample code license).
Cost: 19.1 M parameters, 22.7 GFLOPs, strides 32.
"""

from torch import nn

from models.backbones.mobilevit import mobilevit_xxs
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=320, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """MobileViT-XXS up to its last map."""
    return mobilevit_xxs(pretrained)
