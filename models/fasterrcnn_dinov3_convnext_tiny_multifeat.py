"""Faster R-CNN on three stages of a tiny DINOv3 ConvNeXt, each projected to 256 channels ("multifeat").

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_convnext_tiny_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 42.8 M parameters, 56.0 GFLOPs, strides 8 16 32.
"""

from typing import Any

from models.backbones import dinov3_detector
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = dinov3_detector.multifeat_spec("convnext_tiny")
legacy_layout = dinov3_detector.legacy_multifeat_layout


def create_model(
    num_classes: int,
    pretrained: bool = True,
    options: BuildOptions | None = None,
    *,
    layout: str = "pyramid",
    **detector_options: Any,
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads the ConvNeXt's weights; old files have the same `layout`."""
    backbone = dinov3_detector.multifeat_backbone("convnext_tiny", pretrained, layout)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
