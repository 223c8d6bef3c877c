"""Faster R-CNN on a narrow residual network: stride 64, for large objects.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385, with a quarter of ResNet-18's channels
Weights: none, random.
Cost: 17.5 M parameters, 15.2 GFLOPs, strides 64.
"""

from typing import Any

from models.backbones.custom_resnet import custom_resnet
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=256, strides=(64,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; there are no weights, whatever `pretrained` says."""
    return build_fasterrcnn(custom_resnet(), SPEC, num_classes, options or start(pretrained), **detector_options)
