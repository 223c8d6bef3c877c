"""The feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) over four maps of a network."""

from collections.abc import Iterable, Mapping

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.building.backbone_spec import FPN_CHANNELS, BackboneSpec


def pyramid_spec(stages: Iterable[Iterable[str | int]], *, frozen_stages: int = 0) -> BackboneSpec:
    """The spec of a standard pyramid: maps of strides 4 to 32 and a pooled one, one anchor size each.

    Args:
        stages: children of the body in the groups in which they can be frozen, from the image on.
        frozen_stages: number of groups that a start from published weights freezes.
    """
    return BackboneSpec(
        out_channels=FPN_CHANNELS,
        strides=(4, 8, 16, 32),
        extra_levels=1,
        one_anchor_size_per_level=True,
        stages=tuple(tuple(f"body.{child}" for child in group) for group in stages),
        frozen_stages=frozen_stages,
        frozen_norm=True,
    )


def with_fpn(body: nn.Module, maps: Mapping[str, int], *, norm_layer: type[nn.Module] | None = None) -> BackboneWithFPN:
    """Put a feature pyramid and a pooled level on maps of `body`.

    Args:
        body: its direct children are called in order; those after the last of `maps` are cut off.
        maps: child -> channels of its output, finest first.
        norm_layer: norm in the pyramid; None: no norm.
    """
    names = {child: str(level) for level, child in enumerate(maps)}
    return BackboneWithFPN(body, names, list(maps.values()), FPN_CHANNELS, norm_layer=norm_layer)
