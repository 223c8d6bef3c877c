"""Faster R-CNN on the last map of EfficientNet-B0.

Paper: Tan and Le 2019, https://arxiv.org/abs/1905.11946
Weights: ImageNet, torchvision EfficientNet_B0_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 84.2 M parameters, 74.5 GFLOPs, strides 32.
"""

from typing import Any

from torchvision.models import EfficientNet_B0_Weights, efficientnet_b0

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=1280, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = efficientnet_b0()
    if pretrained:
        load_published(net, EfficientNet_B0_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
