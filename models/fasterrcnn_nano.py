"""Faster R-CNN on five convolutions, with a 128-wide box head ("nano"): stride 8, for small images and fast trials.

Paper: none; the front of YOLOv1's network, https://arxiv.org/abs/1506.02640
Weights: none, random.
Cost: 3.0 M parameters, 12.8 GFLOPs, strides 8.
"""

from typing import Any

from models.backbones.darknet import POOL, conv_stack
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=256, strides=(8,), head_width=128)
LAYERS = ((64, 7, 2), POOL, (128, 3), POOL, (256, 1), (256, 3), (256, 1))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; there are no weights, whatever `pretrained` says."""
    return build_fasterrcnn(conv_stack(LAYERS), SPEC, num_classes, options or start(pretrained), **detector_options)
