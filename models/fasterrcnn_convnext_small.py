"""Faster R-CNN on the last map of ConvNeXt-Small.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545
Weights: ImageNet, torchvision ConvNeXt_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 94.5 M parameters, 112.7 GFLOPs, strides 32.
"""

from typing import Any

from torchvision.models import ConvNeXt_Small_Weights, convnext_small

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=768, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = convnext_small()
    if pretrained:
        load_published(net, ConvNeXt_Small_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
