"""Faster R-CNN on the last map of MobileNetV3-Large.

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: ImageNet, torchvision MobileNet_V3_Large_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 60.7 M parameters, 54.4 GFLOPs, strides 32.
"""

from typing import Any

from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=960, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = mobilenet_v3_large()
    if pretrained:
        load_published(net, MobileNet_V3_Large_Weights.IMAGENET1K_V2)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
