"""Faster R-CNN on ViTDet with a tiny vision transformer, 192 channels wide, and a simple feature pyramid.

Paper: Li et al. 2022, https://arxiv.org/abs/2203.16527
Weights: none, random.
Cost: 22.9 M parameters, 74.8 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from models.backbones.vitdet import SPEC, vitdet_backbone
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.rcnn.detector import FasterRCNN


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; there are no weights, whatever `pretrained` says."""
    backbone = vitdet_backbone(channels=192, heads=3)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
