"""Faster R-CNN on the first 20 convolutions of YOLOv1's network.

Paper: Redmon et al. 2016, https://arxiv.org/abs/1506.02640
Weights: none, random.
Cost: 84.5 M parameters, 90.7 GFLOPs, strides 32.
"""

from torch import nn

from models.backbones.darknet import POOL, conv_stack
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

SPEC = BackboneSpec(out_channels=1024, strides=(32,))
LAYERS = (
    (64, 7, 2), POOL,
    (192, 3), POOL,
    (128, 1), (256, 3), (256, 1), (512, 3), POOL,
    *((256, 1), (512, 3)) * 4, (512, 1), (1024, 3), POOL,
    (512, 1), (1024, 3), (512, 1), (1024, 3),
)  # fmt: skip


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """The first 20 convolutions of YOLOv1; random weights, whatever `pretrained` is."""
    return conv_stack(LAYERS, last_bare=True)
