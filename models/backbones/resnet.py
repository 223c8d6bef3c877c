"""What the ResNet detectors with a feature pyramid share (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

from torch import nn
from torchvision.models import ResNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.building.builder import with_fpn

LAYERS = ("layer1", "layer2", "layer3", "layer4")
STAGES = (("conv1", "bn1"), *((layer,) for layer in LAYERS))


def resnet_with_fpn(net: ResNet, *, norm_layer: type[nn.Module] | None = None) -> BackboneWithFPN:
    """A ResNet of any depth with a feature pyramid; each layer has twice the channels of the one before.

    Args:
        norm_layer: in the pyramid; none without.
    """
    first = net.fc.in_features // 8
    return with_fpn(net, {layer: first * 2**i for i, layer in enumerate(LAYERS)}, norm_layer=norm_layer)
