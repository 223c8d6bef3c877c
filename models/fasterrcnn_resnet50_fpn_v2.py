"""Faster R-CNN on ResNet-50 with a feature pyramid, a deeper RPN and a convolutional box head, batch norm throughout.

Paper: Li et al. 2021, https://arxiv.org/abs/2111.11429
Weights: COCO, torchvision FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1 (BSD-3-Clause), mAP 46.7 on val2017.
Cost: 43.4 M parameters, 225.5 GFLOPs, strides 4 8 16 32 64.
"""

from dataclasses import replace

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from models.backbones.fpn import pyramid_spec
from models.backbones.torchvision_nets import RESNET_STAGES, resnet_with_fpn
from models.building.build_options import BuildOptions
from models.rcnn.roi_pool import SIDE

COCO_WEIGHTS = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1


def _box_head(channels: int, width: int) -> nn.Module:
    return FastRCNNConvFCHead((channels, SIDE, SIDE), [channels] * 4, [width], norm_layer=nn.BatchNorm2d)


SPEC = replace(pyramid_spec(RESNET_STAGES, frozen_stages=2), frozen_norm=False, rpn_convs=2, head=_box_head)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """ResNet-50 with a feature pyramid; its batch norms are always trained."""
    return resnet_with_fpn(resnet50(), norm_layer=nn.BatchNorm2d)
