"""Faster R-CNN on SqueezeNet 1.1 with a narrow last module, and a 256-wide box head ("tiny").

Paper: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
Weights: ImageNet, torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1 (BSD-3-Clause), but for the last module.
Cost: 2.4 M parameters, 4.0 GFLOPs, strides 16.
"""

from torch import nn

from models.backbones.mini_squeezenet import CHANNELS, mini_squeezenet1_1
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=CHANNELS, strides=(16,), head_width=256)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """SqueezeNet 1.1 with a narrow last module."""
    return mini_squeezenet1_1(pretrained)
