"""Faster R-CNN with a feature pyramid on a classification net of torchvision: `--model torchvision/<name>`.

Paper: of the net, see https://docs.pytorch.org/vision/stable/models.html; pyramid: Lin et al. 2017,
    https://arxiv.org/abs/1612.03144
Weights: ImageNet, torchvision's default weights of the net (BSD-3-Clause; those of regnet_y_128gf are CC BY-NC 4.0).
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from models.backbones.measured_fpn import FeatureMap, MapPyramid, choose, map_pyramid_spec, measure, unknown_name
from models.building.backbone_spec import BackboneSpec
from models.building.pretrained import load_state, published_file, read_state
from models.rcnn.errors import ModelError

PREFIX = "torchvision/"
_REFUSED = {
    "vit_": "because of its position embedding: take timm/vit_base_patch16_224 or another ViT of timm",
    "maxvit_": "because of its windows: take torchvision/swin_t",
}
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # they also rescale images to mean 0.5 and deviation 0.5
_HEAD = ("avgpool", "classifier", "fc", "head", "permute", "dropout")  # where a net's maps end
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
_ADVICE = "take another net, such as torchvision/resnet50"


def torchvision_backbone(name: str, pretrained: bool) -> tuple[nn.Module, BackboneSpec]:
    """A feature pyramid on a net of torchvision, and its spec.

    Args:
        name: of the net.
        pretrained: load the net's default weights.

    Raises:
        ModelError: no such net, or it gives no feature maps of images of any size.
    """
    _check(name)
    with torch.device("meta"):
        measured = measure(Trunk(_net(name)).eval(), PREFIX + name, _ADVICE)
    maps = choose(measured, PREFIX + name, _ADVICE)
    trunk = Trunk(_net(name), [m.index for m in maps])
    weights = get_model_weights(name).DEFAULT
    if pretrained:
        _load(trunk, published_file(weights))
    mean, std = _mean_and_std(name, weights)
    spec = map_pyramid_spec(maps, _stages(trunk, measured), mean, std)
    backbone = MapPyramid(trunk, [replace(m, index=i) for i, m in enumerate(maps)])
    return backbone, spec


def torchvision_names(pattern: str = "*") -> list[str]:
    """Nets of torchvision that a detector can be built on, without the prefix."""
    known = [n for n in list_models(module=torchvision.models) if not n.startswith(tuple(_REFUSED))]
    return sorted(fnmatch.filter(known, pattern))


class Trunk(nn.Module):
    """The part of a classification net that gives maps: a chain of units, keys as the net's own.

    Args:
        net: its children are called in order; an nn.Sequential among them counts as its own children.
        ends: units whose outputs are given; all without.
    """

    def __init__(self, net: nn.Module, ends: Sequence[int] | None = None) -> None:
        super().__init__()
        self.units: list[str] = []
        for name, child in net.named_children():
            if name in _HEAD:
                break
            self.add_module(name, child)
            inner = [f"{name}.{n}" for n, _ in child.named_children()] if isinstance(child, nn.Sequential) else [name]
            self.units += inner
        self.ends = tuple(range(len(self.units)) if ends is None else ends)
        self.checkpoints = False

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> outputs of the units at `ends`."""
        outputs = [images]
        for first, last in zip((-1, *self.ends[:-1]), self.ends, strict=True):
            part = self.units[first + 1 : last + 1]
            recompute = self.checkpoints and self.training
            x = outputs[-1]
            outputs.append(checkpoint(self._run, part, x, use_reentrant=False) if recompute else self._run(part, x))
        return outputs[1:]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute what lies between the outputs in the backward pass instead of keeping it."""
        self.checkpoints = enable

    def _run(self, units: Sequence[str], x: Tensor) -> Tensor:
        for unit in units:
            x = functools.reduce(getattr, unit.split("."), self)(x)  # torch.export does not know get_submodule
        return x


class _CountedOnTheHost(TorchFunctionMode):
    """RegNets work their widths out with tensors, which need values even where parameters have none."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def _net(name: str) -> nn.Module:
    """The net `name`, random, without auxiliary heads."""
    if name in _WITH_AUXILIARY_HEADS:
        return get_model(name, weights=None, aux_logits=False, init_weights=True)
    with _CountedOnTheHost() if name.startswith("regnet_") else nullcontext():
        return get_model(name, weights=None)


def _check(name: str) -> None:
    for start_of_name, reason in _REFUSED.items():
        if name.startswith(start_of_name) and name in list_models(module=torchvision.models):
            raise ModelError(f"{PREFIX}{name} takes images of one size only, {reason}")
    if name not in torchvision_names():
        raise unknown_name(PREFIX, name, torchvision_names())


def _load(trunk: Trunk, path: Path) -> None:
    """Load a file of the whole net; of older densenets, which have dots where today's have none, too."""
    state = read_state(path)
    kept = {child for child, _ in trunk.named_children()}
    own = {_DENSE_LAYER.sub(r"\1", key): value for key, value in state.items() if key.split(".")[0] in kept}
    load_state(trunk, own, label=f"{path}: the weights")


def _mean_and_std(name: str, weights: WeightsEnum) -> tuple[Sequence[float], Sequence[float]]:
    """Of RGB in 0..1. Two nets, as torchvision builds them with weights, rescale images to 0.5: here they do not."""
    if name in _WITH_AUXILIARY_HEADS:
        return (0.5,) * 3, (0.5,) * 3
    preset = weights.transforms()
    return preset.mean, preset.std


def _stages(trunk: Trunk, measured: Sequence[FeatureMap]) -> dict[int, tuple[str, ...]]:
    """Stride -> parameters that can be frozen in one step: those of the units up to the last one of that stride."""
    last = {m.stride: m.index for m in measured}
    stages, begin = {}, 0
    for stride, end in sorted(last.items()):
        units = [u for u in trunk.units[begin : end + 1] if any(True for _ in trunk.get_submodule(u).parameters())]
        if units:
            stages[stride] = tuple(f"body.{unit}" for unit in units)
        begin = end + 1
    return stages
