"""Faster R-CNN on the last map of VGG-16 with batch norm.

Paper: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556
Weights: ImageNet, torchvision VGG16_BN_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 44.0 M parameters, 153.1 GFLOPs, strides 32.
"""

from typing import Any

from torchvision.models import VGG16_BN_Weights, vgg16_bn

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=512, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = vgg16_bn()
    if pretrained:
        load_published(net, VGG16_BN_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
