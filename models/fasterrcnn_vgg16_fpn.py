"""Faster R-CNN on VGG-16 with batch norm and a feature pyramid.

Paper: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision VGG16_BN_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 32.1 M parameters, 182.4 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from torchvision.models import VGG16_BN_Weights, vgg16_bn

from models.backbones.fpn import pyramid_spec
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn, with_fpn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

MAPS = {"22": 256, "32": 512, "42": 512, "43": 512}  # before the last three pools, and behind the last
STAGES = ((0, 1, 3, 4), (7, 8, 10, 11), range(14, 23), range(24, 33), range(34, 43))  # between pools
SPEC = pyramid_spec(STAGES, frozen_stages=2)  # Fast R-CNN, https://arxiv.org/abs/1504.08083, section 4.5


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = vgg16_bn()
    if pretrained:
        load_published(net, VGG16_BN_Weights.IMAGENET1K_V1)
    backbone = with_fpn(net.features, MAPS)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
