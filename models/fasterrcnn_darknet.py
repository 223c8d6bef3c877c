"""Faster R-CNN on the first 20 convolutions of YOLOv1's network.

Paper: Redmon et al. 2016, https://arxiv.org/abs/1506.02640
Weights: none, random.
Cost: 84.5 M parameters, 90.7 GFLOPs, strides 32.
"""

from typing import Any

from models.backbones.darknet import POOL, conv_stack
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=1024, strides=(32,))
LAYERS = (
    (64, 7, 2), POOL,
    (192, 3), POOL,
    (128, 1), (256, 3), (256, 1), (512, 3), POOL,
    *((256, 1), (512, 3)) * 4, (512, 1), (1024, 3), POOL,
    (512, 1), (1024, 3), (512, 1), (1024, 3),
)  # fmt: skip


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; there are no weights, whatever `pretrained` says."""
    backbone = conv_stack(LAYERS, last_bare=True)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
