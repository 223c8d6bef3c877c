"""Faster R-CNN on RegNetY-400MF with a feature pyramid.

Paper: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision RegNet_Y_400MF_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 21.1 M parameters, 58.2 GFLOPs, strides 4 8 16 32 64.
"""

from collections import OrderedDict
from typing import Any

from torch import nn
from torchvision.models import RegNet_Y_400MF_Weights

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import regnet_y_400mf
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn, with_fpn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

MAPS = {"block1": 48, "block2": 104, "block3": 208, "block4": 440}
SPEC = pyramid_spec((("stem",), *((block,) for block in MAPS)))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = regnet_y_400mf()
    if pretrained:
        load_published(net, RegNet_Y_400MF_Weights.IMAGENET1K_V2)
    body = nn.Sequential(OrderedDict([("stem", net.stem), *net.trunk_output.named_children()]))
    backbone = with_fpn(body, MAPS)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
