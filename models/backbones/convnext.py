"""What the ConvNeXt detectors with a feature pyramid share (Liu et al. 2022, https://arxiv.org/abs/2201.03545)."""

from torchvision.models import ConvNeXt
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.building.builder import with_fpn

STAGES = (("0",), ("1",), ("2", "3"), ("4", "5"), ("6", "7"))  # stem, then each stage with the downsampling before it


def convnext_with_fpn(net: ConvNeXt) -> BackboneWithFPN:
    """A ConvNeXt of any size with a feature pyramid, which reads each map through a layer norm.

    The residual stream of a ConvNeXt is not normalised, so its authors' detectors have these norms, too.
    """
    first = net.features[0][0].out_channels
    maps = {stage[-1]: first * 2**i for i, stage in enumerate(STAGES[1:])}
    backbone = with_fpn(net.features, maps)
    for lateral, channels in zip(backbone.fpn.inner_blocks, maps.values(), strict=True):
        lateral.insert(0, LayerNorm2d(channels, eps=1e-6))
    return backbone
