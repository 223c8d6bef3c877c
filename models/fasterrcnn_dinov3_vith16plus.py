"""Faster R-CNN on a huge, gated (H+) DINOv3 vision transformer, patches of 16 px, with a simple feature pyramid.

Paper: Siméoni et al. 2025, https://arxiv.org/abs/2508.10104
Weights: self-supervised on LVD-1689M, dinov3_vith16plus_pretrain_lvd1689m (DINOv3 License), given out on request.
Cost: 865.9 M parameters, 1632.8 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from models.backbones import dinov3_detector
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = dinov3_detector.vit_spec("vith16plus")
legacy_layout = dinov3_detector.legacy_layout


def create_model(
    num_classes: int,
    pretrained: bool = True,
    options: BuildOptions | None = None,
    *,
    layout: str = "pyramid",
    **detector_options: Any,
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads the transformer's weights, "legacy" is the layout of old files."""
    backbone = dinov3_detector.vit_backbone("vith16plus", pretrained, layout)
    spec = dinov3_detector.vit_spec("vith16plus", layout)
    return build_fasterrcnn(backbone, spec, num_classes, options or start(pretrained), **detector_options)
