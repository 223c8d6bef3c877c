"""Faster R-CNN on a narrow YOLOv1 network: stride 32.

Paper: Redmon et al. 2016, https://arxiv.org/abs/1506.02640, with a quarter of the channels and less
Weights: none, random.
Cost: 9.0 M parameters, 9.4 GFLOPs, strides 32.
"""

from typing import Any

from models.backbones.darknet import MINI_LAYERS, conv_stack
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=128, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; there are no weights, whatever `pretrained` says."""
    backbone = conv_stack(MINI_LAYERS, last_bare=True)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
