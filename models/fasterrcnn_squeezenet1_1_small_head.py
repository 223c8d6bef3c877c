"""Faster R-CNN on SqueezeNet 1.1, with a 512-wide box head ("small").

Paper: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
Weights: ImageNet, torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 16.3 M parameters, 19.1 GFLOPs, strides 16.
"""

from dataclasses import replace

from torch import nn

from models import fasterrcnn_squeezenet1_1
from models.building.build_options import BuildOptions

SPEC = replace(fasterrcnn_squeezenet1_1.SPEC, head_width=512)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The backbone of fasterrcnn_squeezenet1_1."""
    return fasterrcnn_squeezenet1_1.backbone(pretrained, options)
