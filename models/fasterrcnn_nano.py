"""Faster R-CNN on five convolutions, with a 128-wide box head ("nano"): stride 8, for small images and fast trials.

Paper: none; the front of YOLOv1's network, https://arxiv.org/abs/1506.02640
Weights: none, random.
Cost: 3.0 M parameters, 12.8 GFLOPs, strides 8.
"""

from torch import nn

from models.backbones.darknet import POOL, conv_stack
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=256, strides=(8,), head_width=128)
LAYERS = ((64, 7, 2), POOL, (128, 3), POOL, (256, 1), (256, 3), (256, 1))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """Five convolutions; random weights, whatever `pretrained` is."""
    return conv_stack(LAYERS)
