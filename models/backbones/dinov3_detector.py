"""Backbones of the DINOv3 detectors: trunks with their weights, pyramids on them, and the layout of old files.

Old files are those of the predecessor, which had no pyramids: its vision transformers gave four maps of stride 16 and
pooled every region from the first of them; its ConvNeXts gave only the last map. These are the "legacy" layouts. The
files do not store which four blocks gave the maps: the last four are taken, normalized.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.backbones.dinov3 import CONVNEXTS, VITS, WEIGHTS, WEIGHTS_PAGE, build, completed
from models.backbones.fpn import pyramid_spec
from models.backbones.simple_feature_pyramid import SimpleFeaturePyramid
from models.building.backbone_spec import FPN_CHANNELS, BackboneSpec, Stages
from models.building.build_options import BuildOptions
from models.building.builder import LegacyLayout
from models.building.pretrained import load_state, read_state, weights_file

# With equal strides RoIAlign reads the first map for every region, as in the training of the old heads.
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
        """The last map is normalized; with a vision transformer all maps are."""
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
    """The last three stages of a ConvNeXt, each through its own convolution to 256 channels."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body, len(MULTIFEAT_STRIDES))
        self.projections = nn.ModuleList(nn.Conv2d(dim, FPN_CHANNELS, 1) for dim in body.embed_dims[-self.count :])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0" to "2" at strides 8, 16 and 32, of 256 channels."""
        maps = super().forward(images)
        pairs = zip(maps.items(), self.projections, strict=True)
        return OrderedDict((name, project(level)) for (name, level), project in pairs)


def vit_backbone(name: str, pretrained: bool) -> nn.Module:
    """A simple feature pyramid on the last map of a vision transformer.

    Args:
        name: one of models.backbones.dinov3.VITS.
        pretrained: load the official weights, which must be on disk.

    Raises:
        ModelError: the weights are not on disk, damaged, or of another network.
    """
    return SimpleFeaturePyramid(Maps(_trunk(name, pretrained), 1), VITS[name]["embed_dim"], FPN_CHANNELS)


def vit_spec(name: str) -> BackboneSpec:
    """The spec of `vit_backbone`."""
    return _frozen(pyramid_spec(()), _vit_stages(name, "net.body."))


def vit_legacy(name: str) -> LegacyLayout:
    """The predecessor's layout: the maps of the last four blocks."""
    spec = BackboneSpec(VITS[name]["embed_dim"], LEGACY_VIT_STRIDES)
    make = partial(_trunk_maps, name, len(LEGACY_VIT_STRIDES))
    return LegacyLayout(_frozen(spec, _vit_stages(name, "body.")), make, convert_legacy_state)


def convnext_backbone(name: str, pretrained: bool) -> nn.Module:
    """A feature pyramid on the four stages of a ConvNeXt; arguments and errors as `vit_backbone`."""
    return ConvNeXtPyramid(_trunk(name, pretrained))


def convnext_spec(name: str) -> BackboneSpec:
    """The spec of `convnext_backbone`."""
    return _frozen(pyramid_spec(()), _convnext_stages(name))


def convnext_legacy(name: str) -> LegacyLayout:
    """The predecessor's layout: the last map alone."""
    spec = BackboneSpec(CONVNEXTS[name]["dims"][-1], strides=(32,))
    return LegacyLayout(_frozen(spec, _convnext_stages(name)), partial(_trunk_maps, name, 1), convert_legacy_state)


def multifeat_backbone(name: str, pretrained: bool) -> nn.Module:
    """The last three stages of a ConvNeXt, each projected to 256 channels; arguments and errors as `vit_backbone`."""
    return ProjectedMaps(_trunk(name, pretrained))


def multifeat_spec(name: str) -> BackboneSpec:
    """The spec of `multifeat_backbone`."""
    return _frozen(BackboneSpec(FPN_CHANNELS, MULTIFEAT_STRIDES), _convnext_stages(name))


def multifeat_legacy(name: str) -> LegacyLayout:
    """The predecessor's layout: the same network under other names."""
    return LegacyLayout(multifeat_spec(name), partial(_projected_maps, name), convert_legacy_multifeat_state)


def convert_legacy_state(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Rename the trunk in the state dict of a legacy detector; None: the layout is not legacy."""
    prefix = _trunk_prefix(state)
    if prefix is None or any(key.startswith(_PYRAMIDS) for key in state):
        return None
    return {_renamed(key, prefix): value for key, value in state.items()}


def convert_legacy_multifeat_state(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """As `convert_legacy_state`; the projections are the 1 x 1 convolutions of the backbone."""
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
    remedy = f"request that file at {WEIGHTS_PAGE}"
    path = weights_file(WEIGHTS[name], None, remedy=remedy) if pretrained else None
    net = build(name)
    if path is not None:
        load_state(net, completed(read_state(path)), label=f"{path}: the weights")
    return net


def _frozen(spec: BackboneSpec, stages: Stages) -> BackboneSpec:
    return replace(spec, stages=stages, frozen_stages=len(stages))


def _trunk_maps(name: str, count: int, pretrained: bool, options: BuildOptions) -> nn.Module:
    del options
    return Maps(_trunk(name, pretrained), count)


def _projected_maps(name: str, pretrained: bool, options: BuildOptions) -> nn.Module:
    del options
    return multifeat_backbone(name, pretrained)


def _vit_stages(name: str, body: str) -> Stages:
    tokens = ("patch_embed", "cls_token", "storage_tokens", "mask_token")
    blocks = [(f"blocks.{i}",) for i in range(VITS[name]["depth"])]
    blocks[-1] += ("norm",)
    return tuple(tuple(body + part for part in stage) for stage in (tokens, *blocks))


def _convnext_stages(name: str) -> Stages:
    count = len(CONVNEXTS[name]["depths"])
    stages = [(f"body.downsample_layers.{i}", f"body.stages.{i}") for i in range(count)]
    stages[-1] += ("body.norm",)
    return tuple(stages)


def _trunk_prefix(state: Mapping[str, Tensor]) -> str | None:
    """The prefix of the names of a trunk's tensors; None without a trunk."""
    return next((match[1] for match in map(_TRUNK.fullmatch, state) if match), None)


def _renamed(key: str, prefix: str) -> str:
    return f"backbone.body.{key.removeprefix(prefix)}" if key.startswith(prefix) else key
