"""Faster R-CNN on MobileNetV3-Small with a narrow last layer, and a 128-wide box head ("nano").

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: ImageNet, torchvision MobileNet_V3_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause), but for the last layer.
Cost: 1.9 M parameters, 1.3 GFLOPs, strides 32.
"""

from functools import partial
from typing import Any

from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
from torchvision.ops import Conv2dNormActivation

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

LAST = 12  # child of .features, a 1x1 convolution from 96 channels: the only new, always random, layer
SPEC = BackboneSpec(out_channels=128, strides=(32,), head_width=128)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = mobilenet_v3_small()
    if pretrained:
        load_published(net, MobileNet_V3_Small_Weights.IMAGENET1K_V1)
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # MobileNetV3's
    net.features[LAST] = Conv2dNormActivation(96, SPEC.out_channels, 1, norm_layer=norm, activation_layer=nn.Hardswish)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
