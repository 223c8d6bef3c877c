"""Faster R-CNN with a feature pyramid on a net of the package timm: `--model timm/<name>`.

Paper: of the net, see its page on https://huggingface.co/timm; pyramid: Lin et al. 2017,
    https://arxiv.org/abs/1612.03144, and on plain vision transformers Li et al. 2022, https://arxiv.org/abs/2203.16527
Weights: those that timm names for the net, of many data sets and licenses; its page says which.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.measured_fpn import (
    STRIDES,
    FeatureMap,
    MapPyramid,
    choose,
    map_pyramid_spec,
    measure,
    normalization,
    recompute_activations,
    unknown_name,
)
from models.backbones.simple_feature_pyramid import SimpleFeaturePyramid
from models.building import pretrained as published
from models.building.backbone_spec import FPN_CHANNELS, BackboneSpec
from models.building.pretrained import read_weights, weights_file
from models.rcnn.errors import ModelError

PREFIX = "timm/"
_ADVICE = "take another net, such as timm/resnet50 or timm/vit_base_patch16_224"
_PLAIN_STRIDE = 16  # px, of the one map that SimpleFeaturePyramid takes
_ANY_PATCH_SIZE = ("vision_transformer", "deit", "eva")  # timm's files of nets whose patches timm can resize
_HUB_FILE = "model.safetensors"  # what the nets' weights are called on huggingface.co
_OTHER_MODULES = (  # timm's modules of nets that take images of one size only, or give maps of other strides
    "beit", "cait", "coat", "convit", "convmixer", "crossvit", "deepseek_vit", "efficientformer", "efficientformer_v2",
    "gcvit", "gemma4_vit", "hiera", "levit", "maxxvit", "mlp_mixer", "nest", "pit", "sequencer", "tnt", "visformer",
    "vision_transformer_relpos", "volo",
)  # fmt: skip
_OTHER_NETS = (  # such nets of other modules
    "bat_*", "*botne*", "*halo*", "lambda_resnet26rpt_256", "vit_*_r*_s32_*", "vit_*_resnet*d_224",
    "vit_*_p8_*", "xcit_*_p8_*",
)  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """Arguments that build a net for images of any size, and its maps; none for a plain ViT, which has one."""

    arguments: Mapping[str, Any]
    measured: Sequence[FeatureMap]
    maps: Sequence[FeatureMap]


def timm_backbone(name: str, pretrained: bool) -> tuple[nn.Module, BackboneSpec]:
    """A feature pyramid on a net of timm, and its spec.

    Args:
        name: of the net, with or without a tag.
        pretrained: load the net's weights.

    Raises:
        ModelError: timm is not installed or has no such net, the net gives no maps of images of any size, or it has no
            published weights.
        WeightsNotHereError: the weights are not on disk and cannot be fetched.
    """
    timm = _timm()
    config = _config(timm, name)
    plan = _plan(timm, name)
    net = _net(timm, name, plan, config, pretrained)
    if plan.maps:
        backbone: nn.Module = MapPyramid(net, plan.maps)
        stages: dict[int, tuple[str, ...]] = {}
        for stride, prefixes in _stages(net, "body"):
            stages[stride] = stages.get(stride, ()) + prefixes
        spec = map_pyramid_spec(plan.maps, stages, config.mean, config.std)
    else:
        backbone = SimpleFeaturePyramid(net, plan.measured[-1].channels, FPN_CHANNELS)
        spec = BackboneSpec(
            out_channels=FPN_CHANNELS,
            strides=STRIDES[:4],
            extra_levels=1,
            one_anchor_size_per_level=True,
            detector=normalization(config.mean, config.std),
            stages=tuple(prefixes for _, prefixes in _stages(net, "net")),
        )
    return backbone, spec


def timm_names(pattern: str = "*") -> list[str]:
    """Nets of timm that a detector can be built on, without prefix and tags.

    Raises:
        ModelError: timm is not installed.
    """
    timm = _timm()
    others = {name for module in _OTHER_MODULES for name in timm.list_models(module=module)}
    return [name for name in timm.list_models(pattern, exclude_filters=list(_OTHER_NETS)) if name not in others]


class PlainNet(nn.Module):
    """A vision transformer of timm that gives its last map, normed by its own last norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 16, W / 16)."""
        return self.model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See SimpleFeaturePyramid."""
        recompute_activations(self.model, enable)


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(f"{PREFIX}... needs the package timm: pip install timm ({error})") from None


def _config(timm: ModuleType, name: str) -> Any:
    """timm's PretrainedCfg of the net.

    Raises:
        ModelError: no such net, or tag.
    """
    arch = name.partition(".")[0]
    if not timm.is_model(arch):
        raise unknown_name(PREFIX, name, timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        raise unknown_name(PREFIX, name, timm.list_pretrained(f"{arch}*") or timm.list_models())
    return config


def _plan(timm: ModuleType, name: str) -> _Plan:
    """Try the net as it is, then with timm's ways to make it take images of any size.

    Raises:
        ModelError: none of them gives maps; the message is of the last that the net takes.
    """
    problem = ModelError(f"{PREFIX}{name} gives no feature maps: {_ADVICE}")
    for arguments in _arguments(timm, name):
        plan = _attempt(timm, name, arguments)
        if isinstance(plan, _Plan):
            return plan
        problem = plan or problem
    raise problem


def _attempt(timm: ModuleType, name: str, arguments: Mapping[str, Any]) -> _Plan | ModelError | None:
    """The plan, or why the net gives no maps, or None where it does not take the arguments."""
    try:
        with torch.device("meta"):
            net = timm.create_model(name, features_only=True, **arguments).eval()
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return None
    model = PREFIX + name
    try:
        measured = measure(net, model, _ADVICE)
        if {m.stride for m in measured} != {_PLAIN_STRIDE} or not hasattr(net, "model"):
            return _Plan(arguments, measured, choose(measured, model, _ADVICE))
        with torch.device("meta"):
            plain = PlainNet(timm.create_model(name, num_classes=0, **arguments)).eval()
        return _Plan(arguments, measure(lambda images: [plain(images)], model, _ADVICE), ())
    except ModelError as error:
        return error


def _arguments(timm: ModuleType, name: str) -> Iterator[dict[str, Any]]:
    yield {}
    yield {"dynamic_img_size": True}
    if timm.models.is_model_in_modules(name.partition(".")[0], _ANY_PATCH_SIZE):
        yield {"dynamic_img_size": True, "patch_size": _PLAIN_STRIDE}


def _net(timm: ModuleType, name: str, plan: _Plan, config: Any, pretrained: bool) -> nn.Module:
    kind = {"features_only": True} if plan.maps else {"num_classes": 0}
    file = _file(config, name) if pretrained else None
    if file is None:
        net = timm.create_model(name, **kind, **plan.arguments)
    else:
        net = _loaded(lambda **weights: timm.create_model(name, **kind, **plan.arguments, **weights), file)
    return net if plan.maps else PlainNet(net)


def _file(config: Any, name: str) -> Path:
    """Path of the weights: in weights/, or in the cache of huggingface.co's or torch's hub, fetched if necessary.

    Raises:
        ModelError: nobody has published any.
        WeightsNotHereError: they cannot be fetched.
    """
    if config.hf_hub_id:
        hub = importlib.import_module("huggingface_hub")  # timm needs it
        name = f"{'.'.join(part for part in (config.architecture, config.tag) if part)}.safetensors"
        cached = hub.try_to_load_from_cache(config.hf_hub_id, _HUB_FILE)
        if isinstance(cached, str) and not (published.WEIGHTS_FOLDER / name).is_file():
            return Path(cached)
        return weights_file(name, hub.hf_hub_url(config.hf_hub_id, _HUB_FILE))
    if config.url:
        return weights_file(config.url.rsplit("/", 1)[-1], config.url)
    raise ModelError(f"{PREFIX}{name} has no published weights: start it from random ones with --no-pretrained")


def _loaded(build: Callable[..., nn.Module], file: Path) -> nn.Module:
    """The net with the weights of a file. timm says nothing of those that are not in it, so they are looked for.

    Raises:
        ModelError: the file is damaged, or does not fit the net.
    """
    from safetensors import SafetensorError  # timm needs it

    if file.suffix != ".safetensors":
        read_weights(file)  # refuses what would run code when timm reads it
    nets = []
    for weights in ({}, {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what is equal in both has not been loaded
            try:
                nets.append(build(**weights))
            except (RuntimeError, LookupError, TypeError, ValueError, OSError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ModelError(f"{file}: the weights do not fit, or are damaged: {reason}") from None
    random, net = nets
    missing = [
        name
        for (name, own), loaded in zip(random.named_parameters(), net.parameters(), strict=True)
        if own.requires_grad and own.ndim > 1 and own.min() < own.max() and torch.equal(own, loaded)
    ]
    if missing:
        raise ModelError(f"{file}: the weights do not fit: they lack {missing[0]} and {len(missing) - 1} more")
    return net


def _stages(net: nn.Module, prefix: str) -> list[tuple[int, tuple[str, ...]]]:
    """Of each step in which a net can be frozen: stride, and parameter-name prefixes; from the image on.

    A step ends with a module that timm names as one that gives a map.
    """
    children = [name for name, _ in net.named_children()]
    within = f"{children[0]}." if len(children) == 1 else ""
    info = net.feature_info.info if hasattr(net, "feature_info") else net.model.feature_info
    ends = [within + entry["module"] for entry in info]
    modules = [name for name, _ in net.named_modules()]
    known = any(_is_part(name, end) for name in modules for end in ends)
    step, inside, step_of = (0 if known else len(ends) - 1), False, {}
    for name, module in net.named_modules():
        ahead = next((i for i in range(step, len(ends)) if _is_part(name, ends[i])), None)
        if ahead is not None:
            step, inside = ahead, True
        elif inside:
            step, inside = min(step + 1, len(ends) - 1), False
        step_of |= {parameter: step for parameter, _ in module.named_parameters(prefix=name, recurse=False)}
    steps: list[tuple[str, ...]] = [() for _ in ends]
    for path, step in _shortened(step_of):
        steps[step] += (f"{prefix}.{path}",)
    return [(entry["reduction"], prefixes) for entry, prefixes in zip(info, steps, strict=True) if prefixes]


def _is_part(name: str, end: str) -> bool:
    """Whether a module is `end` or within it; timm writes stages_0 where a net had stages.0."""
    name, end = name.replace("_", "."), end.replace("_", ".")
    return name == end or name.startswith(f"{end}.")


def _shortened(step_of: Mapping[str, int], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Prefixes whose parameters are all of one step, instead of the parameters."""
    children: dict[str, dict[str, int]] = {}
    for name, step in step_of.items():
        child = prefix + name.removeprefix(prefix).partition(".")[0]
        children.setdefault(child, {})[name] = step
    for child, part in children.items():
        if len(set(part.values())) == 1:
            yield child, next(iter(part.values()))
        else:
            yield from _shortened(part, f"{child}.")
