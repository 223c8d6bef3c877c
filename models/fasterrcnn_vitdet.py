"""Faster R-CNN on ViTDet: a base vision transformer, windowed attention, and a simple feature pyramid.

Paper: Li et al. 2022, https://arxiv.org/abs/2203.16527
Weights: masked autoencoder on ImageNet-1k, mae_pretrain_vit_base (CC-BY-NC 4.0).
Cost: 106.0 M parameters, 244.7 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from models.backbones.vitdet import SPEC, load_mae, vitdet_backbone
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn
from models.building.pretrained import weights_file
from models.rcnn.detector import FasterRCNN

MAE_URL = "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads the masked autoencoder's weights into the vision transformer."""
    backbone = vitdet_backbone(channels=768, heads=12)
    if pretrained:
        load_mae(backbone.net, weights_file("mae_pretrain_vit_base.pth", MAE_URL))
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
