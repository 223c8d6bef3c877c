"""Faster R-CNN on the last map of ResNet-101.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385
Weights: ImageNet, torchvision ResNet101_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 184.3 M parameters, 182.7 GFLOPs, strides 32.
"""

from typing import Any

from torch import nn
from torchvision.models import ResNet101_Weights, resnet101

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=2048, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = resnet101()
    if pretrained:
        load_published(net, ResNet101_Weights.IMAGENET1K_V2)
    backbone = nn.Sequential(*list(net.children())[:-2])  # without average pool and classifier
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
