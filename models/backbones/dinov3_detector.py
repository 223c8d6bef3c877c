"""What the DINOv3 detectors share: trunks with their weights, pyramids on them, and the layout of old files.

Old files are those of the predecessor, which had no pyramids: its vision transformers gave four maps of stride 16 and
pooled every region from the first of them, its ConvNeXts gave the last map alone. Those are the "legacy" layouts. Its
files do not say which four blocks the maps are of: the last four are taken, normalized.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.backbones.dinov3 import CONVNEXTS, VITS, WEIGHTS, WEIGHTS_PAGE, build, completed
from models.backbones.fpn import pyramid_spec
from models.backbones.simple_feature_pyramid import SimpleFeaturePyramid
from models.building.builder import FPN_CHANNELS, BackboneSpec, Stages
from models.building.pretrained import load_state, read_state, weights_file
from models.rcnn.errors import ModelError

LAYOUTS = ("pyramid", "legacy")
# Of equal strides RoIAlign takes the first map for every region, which is what the old heads are trained on.
LEGACY_VIT_STRIDES = (16, 16, 16, 16)
MULTIFEAT_STRIDES = (8, 16, 32)
_TRUNK = re.compile(r"(backbone\.(?:.+\.)?)(?:cls_token|downsample_layers\.0\.0\.weight)")
_PYRAMIDS = ("backbone.simfp_", "backbone.fpn.")


class Maps(nn.Module):
    """The last maps of a DINOv3 network: (B, 3, H, W) -> one map, or "0", "1", ..., finest or earliest first."""

    def __init__(self, body: nn.Module, count: int) -> None:
        super().__init__()
        self.body = body
        self.count = count

    def forward(self, images: Tensor) -> Tensor | OrderedDict[str, Tensor]:
        """The last of them is normalized, and of a vision transformer all are."""
        maps = self.body.get_intermediate_layers(images, self.count, reshape=True)
        return maps[0] if self.count == 1 else OrderedDict((str(i), level) for i, level in enumerate(maps))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the body recompute its activations in the backward pass."""
        self.body.set_grad_checkpointing(enable)


class ConvNeXtPyramid(Maps):
    """A feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) on the stages of a ConvNeXt."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body, body.n_blocks)
        self.fpn = FeaturePyramidNetwork(body.embed_dims, FPN_CHANNELS, LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0" to "3" at strides 4 to 32, and "pool"; all of 256 channels."""
        return self.fpn(super().forward(images))


class ProjectedMaps(Maps):
    """The last three stages of a ConvNeXt, each through a convolution of its own to 256 channels."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body, len(MULTIFEAT_STRIDES))
        self.projections = nn.ModuleList(nn.Conv2d(dim, FPN_CHANNELS, 1) for dim in body.embed_dims[-self.count :])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0" to "2" at strides 8, 16 and 32, of 256 channels."""
        maps = super().forward(images)
        pairs = zip(maps.items(), self.projections, strict=True)
        return OrderedDict((name, project(level)) for (name, level), project in pairs)


def vit_backbone(name: str, pretrained: bool, layout: str = "pyramid") -> nn.Module:
    """A simple feature pyramid on the last map, or in the legacy layout the maps of the last four blocks.

    Args:
        name: one of models.backbones.dinov3.VITS.
        pretrained: load the official weights, which must be on disk.
        layout: one of LAYOUTS.

    Raises:
        ModelError: unknown layout, or the weights are not here, damaged, or others.
    """
    if _is_legacy(layout):
        return Maps(_trunk(name, pretrained), len(LEGACY_VIT_STRIDES))
    return SimpleFeaturePyramid(Maps(_trunk(name, pretrained), 1), VITS[name]["embed_dim"], FPN_CHANNELS)


def vit_spec(name: str, layout: str = "pyramid") -> BackboneSpec:
    """Of the backbone that `vit_backbone` gives."""
    legacy = _is_legacy(layout)
    body = "body." if legacy else "net.body."
    tokens = ("patch_embed", "cls_token", "storage_tokens", "mask_token")
    blocks = [(f"blocks.{i}",) for i in range(VITS[name]["depth"])]
    blocks[-1] += ("norm",)
    stages = tuple(tuple(body + part for part in stage) for stage in (tokens, *blocks))
    spec = BackboneSpec(VITS[name]["embed_dim"], LEGACY_VIT_STRIDES) if legacy else pyramid_spec(())
    return _frozen(spec, stages)


def convnext_backbone(name: str, pretrained: bool, layout: str = "pyramid") -> nn.Module:
    """A feature pyramid on the four stages, or in the legacy layout the last map; see `vit_backbone`."""
    trunk = _trunk(name, pretrained)
    return Maps(trunk, 1) if _is_legacy(layout) else ConvNeXtPyramid(trunk)


def convnext_spec(name: str, layout: str = "pyramid") -> BackboneSpec:
    """Of the backbone that `convnext_backbone` gives."""
    spec = BackboneSpec(CONVNEXTS[name]["dims"][-1], strides=(32,)) if _is_legacy(layout) else pyramid_spec(())
    return _frozen(spec, _convnext_stages(name))


def multifeat_backbone(name: str, pretrained: bool, layout: str = "pyramid") -> nn.Module:
    """The last three stages of a ConvNeXt, each projected to 256 channels, in both layouts; see `vit_backbone`."""
    _is_legacy(layout)  # refuses what is neither
    return ProjectedMaps(_trunk(name, pretrained))


def multifeat_spec(name: str) -> BackboneSpec:
    """Of the backbone that `multifeat_backbone` gives."""
    return _frozen(BackboneSpec(FPN_CHANNELS, MULTIFEAT_STRIDES), _convnext_stages(name))


def legacy_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """State dict of a detector of the legacy layout, its trunk renamed as it is here; None: it is of today's."""
    prefix = _trunk_prefix(state)
    if prefix is None or any(key.startswith(_PYRAMIDS) for key in state):
        return None
    return {_renamed(key, prefix): value for key, value in state.items()}


def legacy_multifeat_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """As `legacy_layout`, of a network that has always had the same layout: projections are those of 1 x 1 cells."""
    prefix = _trunk_prefix(state)
    if prefix is None or "backbone.projections.0.weight" in state:
        return None
    weights = [key for key, value in state.items() if key.startswith("backbone.") and value.shape[2:] == (1, 1)]
    weights.sort(key=lambda key: state[key].shape[1])
    names = {key.removesuffix("weight"): f"backbone.projections.{i}." for i, key in enumerate(weights)}
    renamed = {}
    for key, value in state.items():
        module, dot, part = key.rpartition(".")
        renamed[names[module + dot] + part if module + dot in names else _renamed(key, prefix)] = value
    return renamed


def _trunk(name: str, pretrained: bool) -> nn.Module:
    remedy = f"ask for that file at {WEIGHTS_PAGE}, where it is given out on request,"
    path = weights_file(WEIGHTS[name], None, remedy=remedy) if pretrained else None
    net = build(name)
    if path is not None:
        load_state(net, completed(read_state(path)), what=f"{path}: the weights")
    return net


def _frozen(spec: BackboneSpec, stages: Stages) -> BackboneSpec:
    return replace(spec, stages=stages, frozen_stages=len(stages))


def _convnext_stages(name: str) -> Stages:
    count = len(CONVNEXTS[name]["depths"])
    stages = [(f"body.downsample_layers.{i}", f"body.stages.{i}") for i in range(count)]
    stages[-1] += ("body.norm",)
    return tuple(stages)


def _is_legacy(layout: str) -> bool:
    if layout not in LAYOUTS:
        raise ModelError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    return layout == "legacy"


def _trunk_prefix(state: Mapping[str, Tensor]) -> str | None:
    """What the names of a trunk's tensors begin with; None without a trunk."""
    return next((match[1] for match in map(_TRUNK.fullmatch, state) if match), None)


def _renamed(key: str, prefix: str) -> str:
    return f"backbone.body.{key.removeprefix(prefix)}" if key.startswith(prefix) else key
