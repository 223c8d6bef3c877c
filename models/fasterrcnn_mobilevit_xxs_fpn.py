"""Faster R-CNN on MobileViT-XXS with a feature pyramid.

Paper: Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, mobilevit_xxs.pt of Apple's CVNets (Apple sample code license).
Cost: 17.9 M parameters, 59.7 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones.fpn import pyramid_spec, with_fpn
from models.backbones.mobilevit import mobilevit_xxs
from models.building.build_options import BuildOptions

MAPS = {"2": 24, "3": 48, "4": 64, "5": 80}  # the wide convolution after them serves the classifier
SPEC = pyramid_spec((("0", "1"), *((stage,) for stage in MAPS)))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """MobileViT-XXS with a feature pyramid."""
    return with_fpn(mobilevit_xxs(pretrained), MAPS)
