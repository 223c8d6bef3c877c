"""What the ResNet-50 FPN detectors share: the body's stages, and how it is frozen."""

from typing import Any

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.builder import BuildOptions, with_fpn

STAGES = {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
FREEZABLE = (("conv1", "bn1"), *((stage,) for stage in STAGES))


def resnet50_with_fpn(
    options: BuildOptions, body_norm: Any, fpn_norm: type[nn.Module] | None = None
) -> BackboneWithFPN:
    """ResNet-50 (He et al. 2016, https://arxiv.org/abs/1512.03385) with a feature pyramid."""
    return with_fpn(resnet50(norm_layer=body_norm), STAGES, FREEZABLE, options, norm_layer=fpn_norm)
