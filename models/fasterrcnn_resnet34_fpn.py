"""Faster R-CNN on ResNet-34 with a feature pyramid.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ResNet34_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 38.5 M parameters, 85.0 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from torchvision.models import ResNet34_Weights, resnet34

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import RESNET_STAGES, resnet_with_fpn
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = pyramid_spec(RESNET_STAGES, frozen_stages=2)  # as torchvision's detectors on ResNet-50


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = resnet34()
    if pretrained:
        load_published(net, ResNet34_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(resnet_with_fpn(net), SPEC, num_classes, options or start(pretrained), **detector_options)
