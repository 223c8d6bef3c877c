"""Faster R-CNN on SqueezeNet 1.1, with a 512-wide box head ("small").

Paper: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
Weights: ImageNet, torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1 (BSD-3-Clause).
Cost: 16.3 M parameters, 19.1 GFLOPs, strides 16.
"""

from typing import Any

from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_published
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=512, strides=(16,), head_width=512)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = squeezenet1_1()
    if pretrained:
        load_published(net, SqueezeNet1_1_Weights.IMAGENET1K_V1)
    return build_fasterrcnn(net.features, SPEC, num_classes, options or start(pretrained), **detector_options)
