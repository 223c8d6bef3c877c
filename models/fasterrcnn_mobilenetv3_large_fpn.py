"""Faster R-CNN on MobileNetV3-Large with a feature pyramid.

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: COCO, torchvision FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1 (BSD-3-Clause), mAP 32.8 on val2017.
Cost: 19.0 M parameters, 16.9 GFLOPs, strides 32 32 64.
"""

from typing import Any

from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_FPN_Weights

from models.backbones.mobilenetv3_fpn import FROZEN_STAGES, STAGES, STRIDES, mobilenet_with_fpn
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.building.pretrained import load_coco
from models.rcnn.detector import FasterRCNN

COCO_WEIGHTS = FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1
SPEC = BackboneSpec(
    out_channels=256,
    strides=STRIDES,
    extra_levels=1,
    stages=STAGES,
    frozen_stages=FROZEN_STAGES,
    detector={"rpn_score_thresh": 0.05},
)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads COCO weights."""
    options = options or start(pretrained)
    detector = build_fasterrcnn(mobilenet_with_fpn(options), SPEC, num_classes, options, **detector_options)
    if pretrained:
        load_coco(detector, COCO_WEIGHTS, num_classes)
    return detector
