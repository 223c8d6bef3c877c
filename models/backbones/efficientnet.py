"""What the EfficientNet detectors with a feature pyramid share (Tan and Le 2019, https://arxiv.org/abs/1905.11946)."""

from torchvision.models import EfficientNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.building.builder import with_fpn

MAPS = ("2", "3", "5", "7")  # the last child of each stride; the wide convolution behind them serves the classifier
STAGES = (("0", "1"), ("2",), ("3",), ("4", "5"), ("6", "7"))


def efficientnet_with_fpn(net: EfficientNet) -> BackboneWithFPN:
    """An EfficientNet of any size with a feature pyramid."""
    return with_fpn(net.features, {child: net.features[int(child)][-1].out_channels for child in MAPS})
