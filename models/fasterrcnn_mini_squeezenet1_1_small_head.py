"""Faster R-CNN on SqueezeNet 1.1 with a narrow last module, and a 512-wide box head ("small").

Paper: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
Weights: ImageNet, torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1 (BSD-3-Clause), but for the last module.
Cost: 4.2 M parameters, 5.8 GFLOPs, strides 16.
"""

from typing import Any

from models.backbones.mini_squeezenet import CHANNELS, mini_squeezenet1_1
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=CHANNELS, strides=(16,), head_width=512)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    backbone = mini_squeezenet1_1(pretrained)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
