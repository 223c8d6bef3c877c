"""Faster R-CNN on MobileNetV3-Large with a feature pyramid.

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: COCO, torchvision FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1 (BSD-3-Clause), mAP 32.8 on val2017.
Cost: 19.0 M parameters, 16.9 GFLOPs, strides 32 32 64.
"""

from torch import nn
from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_FPN_Weights

from models.backbones.mobilenetv3_fpn import mobilenet_fpn_spec, mobilenet_with_fpn
from models.building.build_options import BuildOptions

COCO_WEIGHTS = FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1
SPEC = mobilenet_fpn_spec(rpn_score_thresh=0.05)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """MobileNetV3-Large with a feature pyramid."""
    return mobilenet_with_fpn(options)
