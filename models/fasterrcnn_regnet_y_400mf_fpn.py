"""Faster R-CNN on RegNetY-400MF with a feature pyramid.

Paper: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision RegNet_Y_400MF_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 21.1 M parameters, 58.2 GFLOPs, strides 4 8 16 32 64.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models import RegNet_Y_400MF_Weights

from models.backbones.fpn import pyramid_spec, with_fpn
from models.backbones.torchvision_nets import classification_net, regnet_y_400mf
from models.building.build_options import BuildOptions

MAPS = {"block1": 48, "block2": 104, "block3": 208, "block4": 440}
SPEC = pyramid_spec((("stem",), *((block,) for block in MAPS)))


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """RegNetY-400MF with a feature pyramid."""
    net = classification_net(regnet_y_400mf, RegNet_Y_400MF_Weights.IMAGENET1K_V2, pretrained)
    return with_fpn(nn.Sequential(OrderedDict([("stem", net.stem), *net.trunk_output.named_children()])), MAPS)
