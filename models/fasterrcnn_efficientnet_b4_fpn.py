"""Faster R-CNN on EfficientNet-B4 with a feature pyramid.

Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision EfficientNet_B4_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 33.9 M parameters, 66.6 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from torchvision.models import EfficientNet_B4_Weights, efficientnet_b4

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import EFFICIENTNET_STAGES, efficientnet_with_fpn
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = pyramid_spec(EFFICIENTNET_STAGES)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = efficientnet_b4()
    if pretrained:
        load_published(net, EfficientNet_B4_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(
        efficientnet_with_fpn(net), SPEC, num_classes, options or start(pretrained), **detector_options
    )
