"""What the ResNet-50 FPN detectors share: the maps of the body and its stages."""

from typing import Any

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.builder import with_fpn

MAPS = {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
STAGES = (("body.conv1", "body.bn1"), *((f"body.{name}",) for name in MAPS))


def resnet50_with_fpn(body_norm: Any, fpn_norm: type[nn.Module] | None = None) -> BackboneWithFPN:
    """ResNet-50 (He et al. 2016, https://arxiv.org/abs/1512.03385) with a feature pyramid."""
    return with_fpn(resnet50(norm_layer=body_norm), MAPS, norm_layer=fpn_norm)
