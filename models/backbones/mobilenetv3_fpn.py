"""MobileNetV3-Large (Howard et al. 2019, https://arxiv.org/abs/1905.02244) with a feature pyramid.

As in torchvision, the box head pools from one map of stride 32: both maps of the pyramid that it could read have that
stride, and the published weights were trained this way.
"""

from typing import Any

from torchvision.models import mobilenet_v3_large
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.backbones.fpn import with_fpn
from models.building.backbone_spec import FPN_CHANNELS, BackboneSpec
from models.building.build_options import BuildOptions
from models.building.norms import published_norm

STRIDES = (32, 32)
MAPS = {"13": 160, "16": 960}  # children of .features
STAGES = tuple(
    tuple(f"body.{child}" for child in group)
    for group in ((0, 1), (2, 3), (4, 5, 6), range(7, 13), (13, 14, 15), (16,))
)
FROZEN_STAGES = 3  # torchvision trains three


def mobilenet_fpn_spec(**detector: Any) -> BackboneSpec:
    """The spec of `mobilenet_with_fpn`; `detector` gives defaults for arguments of torchvision's FasterRCNN."""
    return BackboneSpec(
        out_channels=FPN_CHANNELS,
        strides=STRIDES,
        extra_levels=1,
        detector=detector,
        stages=STAGES,
        frozen_stages=FROZEN_STAGES,
    )


def mobilenet_with_fpn(options: BuildOptions) -> BackboneWithFPN:
    """The backbone with random weights and the norms of the options."""
    return with_fpn(mobilenet_v3_large(norm_layer=published_norm(options.norm)).features, MAPS)
