"""Faster R-CNN on a narrow YOLOv1 network: stride 32.

Paper: Redmon et al. 2016, https://arxiv.org/abs/1506.02640, with a quarter of the channels and less
Weights: none, random.
Cost: 9.0 M parameters, 9.4 GFLOPs, strides 32.
"""

from torch import nn

from models.backbones.darknet import MINI_LAYERS, conv_stack
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=128, strides=(32,))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """A narrow YOLOv1 network; random weights, whatever `pretrained` is."""
    return conv_stack(MINI_LAYERS, last_bare=True)
