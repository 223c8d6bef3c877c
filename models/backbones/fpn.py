"""What detectors with a feature pyramid over four maps have in common."""

from collections.abc import Iterable

from models.building.builder import FPN_CHANNELS, BackboneSpec


def pyramid_spec(stages: Iterable[Iterable[str | int]], *, frozen_stages: int = 0) -> BackboneSpec:
    """The spec of a standard pyramid: maps of strides 4 to 32 and a pooled one, an anchor size each.

    Args:
        stages: children of the body in the groups in which they can be frozen, from the image on.
        frozen_stages: how many of them are, from published weights.
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
