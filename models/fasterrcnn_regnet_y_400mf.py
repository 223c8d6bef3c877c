"""Faster R-CNN on the last map of RegNetY-400MF.

Paper: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678
Weights: ImageNet, torchvision RegNet_Y_400MF_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 28.9 M parameters, 27.2 GFLOPs, strides 32.
"""

from typing import Any

from torch import nn
from torchvision.models import RegNet_Y_400MF_Weights

from models.backbones.torchvision_nets import regnet_y_400mf
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

STAGES = (("0",), *((f"1.block{i}",) for i in range(1, 5)))  # stem, and the parts of the trunk
SPEC = BackboneSpec(out_channels=440, strides=(32,), stages=STAGES)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = regnet_y_400mf()
    if pretrained:
        load_published(net, RegNet_Y_400MF_Weights.IMAGENET1K_V2)
    backbone = nn.Sequential(*list(net.children())[:-2])  # without average pool and classifier
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
