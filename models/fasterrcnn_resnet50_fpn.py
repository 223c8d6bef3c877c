"""Faster R-CNN on ResNet-50 with a feature pyramid.

Paper: Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: COCO, torchvision FasterRCNN_ResNet50_FPN_Weights.COCO_V1 (BSD-3-Clause), mAP 37.0 on val2017.
Cost: 41.4 M parameters, 90.8 GFLOPs, strides 4 8 16 32 64.
"""

from functools import partial

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import FrozenBatchNorm2d

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import RESNET_STAGES, resnet_with_fpn
from models.building.build_options import BuildOptions
from models.building.norms import published_norm

COCO_WEIGHTS = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
SPEC = pyramid_spec(RESNET_STAGES, frozen_stages=2)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-50 with a feature pyramid."""
    norm = published_norm(options.norm)
    if norm is FrozenBatchNorm2d:
        norm = partial(norm, eps=0.0)  # as the published weights were trained
    return resnet_with_fpn(resnet50(norm_layer=norm))
