"""Faster R-CNN on a narrow YOLOv1 network, with a 128-wide box head ("nano"): stride 32.

Paper: Redmon et al. 2016, https://arxiv.org/abs/1506.02640, with a quarter of the channels and less
Weights: none, random.
Cost: 2.2 M parameters, 2.7 GFLOPs, strides 32.
"""

from torch import nn

from models.backbones.darknet import MINI_LAYERS, conv_stack
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=128, strides=(32,), head_width=128)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The backbone of fasterrcnn_mini_darknet; random weights, whatever `pretrained` is."""
    return conv_stack(MINI_LAYERS, last_bare=True)
