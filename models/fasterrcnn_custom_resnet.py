"""Faster R-CNN on a narrow residual network: stride 64, for large objects.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, with a quarter of ResNet-18's channels
Weights: none, random.
Cost: 17.5 M parameters, 15.2 GFLOPs, strides 64.
"""

from torch import nn

from models.backbones.custom_resnet import custom_resnet
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=256, strides=(64,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """A narrow residual network; random weights, whatever `pretrained` is."""
    return custom_resnet()
