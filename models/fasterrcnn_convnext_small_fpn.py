"""Faster R-CNN on ConvNeXt-Small with a feature pyramid.

Paper: Liu et al. 2022, https://arxiv.org/abs/2201.03545, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision ConvNeXt_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 66.8 M parameters, 126.4 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from torchvision.models import ConvNeXt_Small_Weights, convnext_small

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import CONVNEXT_STAGES, convnext_with_fpn
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = pyramid_spec(CONVNEXT_STAGES)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = convnext_small()
    if pretrained:
        load_published(net, ConvNeXt_Small_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(convnext_with_fpn(net), SPEC, num_classes, options or start(pretrained), **detector_options)
