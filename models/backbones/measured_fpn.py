"""A feature pyramid on any net that gives maps of several strides; timm_fpn.py and torchvision_fpn.py build on it.

Strides, channels and layout of the maps are measured, not declared: the net runs once on the meta device, which costs
no arithmetic and no memory.
"""

import difflib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from models.backbones.simple_feature_pyramid import ChannelLayerNorm
from models.building.backbone_spec import ANCHOR_SIZES, FPN_CHANNELS, BackboneSpec
from models.building.norms import batch_norms
from models.rcnn.errors import ModelError

STRIDES = (4, 8, 16, 32, 64)  # px; finer maps cost more than they give, FPN paper section 4
FROZEN = 2  # stages that stay as published by default, at most, and only up to stride 4: as in torchvision's detectors
PROBES = ((512, 640), (544, 736), (96, 160))  # px; images of detectors are any multiples of 32
_LISTS = {
    "timm/": "https://huggingface.co/timm",
    "torchvision/": "https://docs.pytorch.org/vision/stable/models.html",
}
_LONG = 80  # characters of a name that a message repeats
_CUT_OFF = 4  # cells: nets without padding give maps that are smaller than the image by these at most
_CANNOT_RUN = (RuntimeError, AssertionError, ValueError, TypeError, LookupError)  # raised by nets of fixed size


@dataclass(frozen=True)
class FeatureMap:
    """An output of a net, as the pyramid uses it."""

    index: int  # among the net's outputs
    stride: int  # px per cell
    channels: int
    channels_last: bool = False  # (B, H, W, C) instead of (B, C, H, W)
    exact: bool = True  # ceil(image / stride) cells at every image size


class MapPyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) over maps of a net, five levels in all.

    Args:
        body: (B, 3, H, W) -> list of maps, float; has set_grad_checkpointing(enable) if it can.
        maps: the ones to use, finest first.
    """

    def __init__(self, body: nn.Module, maps: Sequence[FeatureMap]) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.body = body
        self.fpn = FeaturePyramidNetwork([m.channels for m in maps], FPN_CHANNELS, PooledLevels(_extra(maps)))
        if not batch_norms(body):  # such maps have no particular scale; the authors of Swin and ConvNeXt norm them, too
            for lateral, m in zip(self.fpn.inner_blocks, maps, strict=True):
                lateral.insert(0, ChannelLayerNorm(m.channels))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0", "1", ..., finest first, then pooled ones; all (B, 256, ceil(H / stride), ...)."""
        outputs = self.body(images)
        return self.fpn(OrderedDict((str(i), _as_map(outputs[m.index], m, images)) for i, m in enumerate(self.maps)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the net recompute its activations in the backward pass, which saves memory and costs a forward pass.

        Raises:
            ModelError: the net cannot.
        """
        recompute_activations(self.body if hasattr(self.body, "set_grad_checkpointing") else self.body.model, enable)


class PooledLevels(ExtraFPNBlock):
    """Every second cell of the coarsest map, `count` times: as torchvision's LastLevelMaxPool, which does it once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """See ExtraFPNBlock."""
        del x
        for i in range(self.count):
            results.append(F.max_pool2d(results[-1], kernel_size=1, stride=2))
            names.append(f"pool{i or ''}")
        return results, names


def recompute_activations(net: nn.Module, enable: bool) -> None:
    """net.set_grad_checkpointing(enable), in timm's sense.

    Raises:
        ModelError: the net cannot.
    """
    try:
        net.set_grad_checkpointing(enable)
    except AssertionError as error:  # timm's way to say so
        raise ModelError(f"activation_checkpointing: {error}: leave --activation-checkpointing out") from None


def measure(net: Callable[[Tensor], Sequence[Tensor]], model: str, advice: str) -> list[FeatureMap]:
    """Maps that a net on the meta device gives; those whose stride is no power of two are left out.

    Args:
        net: (B, 3, H, W) -> list of outputs, in eval mode.
        model, advice: beginning and end of the error message.

    Raises:
        ModelError: the net cannot run on images of all sizes.
    """
    maps: list[FeatureMap] | None = None
    for size in PROBES:
        try:
            with torch.no_grad():
                shapes = [tuple(output.shape) for output in net(torch.zeros(1, 3, *size, device="meta"))]
        except _CANNOT_RUN as error:
            reason = str(error).split("\n")[0][:120].rstrip(". ") or type(error).__name__
            raise ModelError(f"{model} cannot run on images of {size[0]} x {size[1]} px ({reason}): {advice}") from None
        if maps is None:
            maps = [m for i, shape in enumerate(shapes) if (m := _map_of(i, shape, size))]
        missing = {m.index: _cut_off(shapes[m.index], m, size) for m in maps}
        maps = [replace(m, exact=m.exact and not missing[m.index]) for m in maps if missing[m.index] <= _CUT_OFF]
    return maps or []


def choose(maps: Sequence[FeatureMap], model: str, advice: str) -> list[FeatureMap]:
    """The last map of each stride from 4 on, finest first.

    Raises:
        ModelError: there are fewer than two, or strides between them are missing.
    """
    last = {m.stride: m for m in maps if m.stride in STRIDES}
    strides = sorted(last)
    if len(strides) < 2 or strides != [strides[0] * 2**i for i in range(len(strides))]:
        strides_text = ", ".join(map(str, sorted({m.stride for m in maps}))) or "no power of two"
        raise ModelError(
            f"{model} has no maps for a pyramid: their strides are {strides_text}, expected two or more of "
            f"{', '.join(map(str, STRIDES))} px, each twice the one before: {advice}"
        )
    return [last[stride] for stride in strides]


def map_pyramid_spec(
    maps: Sequence[FeatureMap], stages: Mapping[int, tuple[str, ...]], mean: Iterable[float], std: Iterable[float]
) -> BackboneSpec:
    """The BackboneSpec of MapPyramid(body, maps).

    Args:
        stages: stride in px -> parameter-name prefixes, from the image on; see BackboneSpec.
        mean, std: of RGB in 0..1, as the net was trained with.
    """
    return BackboneSpec(
        out_channels=FPN_CHANNELS,
        strides=tuple(m.stride for m in maps),
        extra_levels=_extra(maps),
        one_anchor_size_per_level=True,
        detector=normalization(mean, std),
        stages=tuple(stages.values()),
        frozen_stages=min(FROZEN, sum(stride <= STRIDES[0] for stride in stages)),
        frozen_norm=True,
    )


def normalization(mean: Iterable[float], std: Iterable[float]) -> Mapping[str, Any]:
    """The arguments of a detector that normalizes images so."""
    return {"image_mean": list(mean), "image_std": list(std)}


def unknown_name(prefix: str, name: str, known: Iterable[str]) -> ModelError:
    """The error for a name that is none, with the nearest ones that are."""
    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {', '.join(prefix + n for n in near)}?" if near else f"{_LISTS[prefix]} lists them"
    return ModelError(f"unknown model {(prefix + name)[:_LONG]!r}: {hint}")


def _map_of(index: int, shape: Sequence[int], image: tuple[int, int]) -> FeatureMap | None:
    """Layout and stride of a (B, C, H, W) or (B, H, W, C) map of an image of (height, width) px, or None."""
    layouts = []
    for channels_last in (False, True) if len(shape) == 4 else ():
        sides = shape[1:3] if channels_last else shape[2:]
        powers = {round(math.log2(px / cells)) for px, cells in zip(image, sides, strict=True)}
        if len(powers) == 1 and min(powers) >= 0:
            layouts.append(FeatureMap(index, 2 ** powers.pop(), shape[3] if channels_last else shape[1], channels_last))
    return min(layouts, key=lambda m: _cut_off(shape, m, image), default=None)


def _cut_off(shape: Sequence[int], m: FeatureMap, image: tuple[int, int]) -> int:
    """Cells by which an output of `shape` differs from its size by the stride."""
    sides = shape[1:3] if m.channels_last else shape[2:]
    return max(abs(cells - math.ceil(px / m.stride)) for cells, px in zip(sides, image, strict=True))


def _as_map(x: Tensor, m: FeatureMap, images: Tensor) -> Tensor:
    """A (B, C, H, W) map that covers the image: a net without padding cuts some off, and others round up."""
    if m.channels_last:
        x = x.permute(0, 3, 1, 2)
    if m.exact:
        return x
    height, width = (math.ceil(px / m.stride) for px in images.shape[2:])
    if x.shape[2] > height or x.shape[3] > width:
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    rows, columns = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _extra(maps: Sequence[FeatureMap]) -> int:
    """Pooled levels, so that there is one for each anchor size."""
    return len(ANCHOR_SIZES) - len(maps)
