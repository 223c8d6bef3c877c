"""From a backbone to a detector: the only place that decides on anchors, RoI pooling, heads and freezing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from models.building.build_options import BuildOptions
from models.building.norms import batch_norms, replace_by_group_norms
from models.rcnn.anchors import Float32Anchors
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.layers import ClassAgnosticPredictor, Float32Predictor, Float32RPNHead, LinearHead
from models.rcnn.roi_pool import RoIPool

ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, side of a square anchor; FPN paper section 4.1
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
FPN_CHANNELS = 256

Stages = tuple[tuple[str, ...], ...]  # groups of parameter-name prefixes, from the image on


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone gives, declared once; anchors, pooling and heads follow from it."""

    out_channels: int
    strides: tuple[int, ...]  # px per cell of each map that regions are pooled from, finest first
    extra_levels: int = 0  # coarser maps that only the RPN sees, each of twice the stride
    one_anchor_size_per_level: bool = False  # an FPN's levels share the anchor sizes out; otherwise each has all five
    head_width: int = 1024
    rpn_convs: int = 1
    head: Callable[[int, int], nn.Module] | None = None  # (channels, width) -> box head, instead of two linear layers
    detector: Mapping[str, Any] | None = None  # torchvision FasterRCNN arguments that this model has other defaults for
    stages: Stages | None = None  # what can be frozen, step by step; None: the children of a Sequential
    frozen_stages: int = 0  # of a start from published weights
    frozen_norm: bool = False  # batch norms of a start from published weights stay as they are

    @property
    def levels(self) -> tuple[int, ...]:
        """Strides of all maps that have anchors."""
        return self.strides + tuple(self.strides[-1] * 2 ** (i + 1) for i in range(self.extra_levels))


def build_fasterrcnn(
    backbone: nn.Module,
    spec: BackboneSpec,
    num_classes: int,
    options: BuildOptions,
    **torchvision_options: Any,
) -> FasterRCNN:
    """A detector on `backbone`, which gives one map or a dict of maps "0", "1", ... and others for the RPN alone.

    Args:
        backbone: its maps have spec.out_channels channels and spec.strides.
        num_classes: with the background.
        torchvision_options: further arguments of torchvision's FasterRCNN, such as min_size.

    Raises:
        ModelError: the options do not fit the backbone.
    """
    if options.norm == "group":
        replace_by_group_norms(backbone)
    if options.activation_checkpointing:
        _checkpoint_activations(backbone)
    anchors = _anchors(spec, options.anchor_sizes or ANCHOR_SIZES, options.aspect_ratios or ASPECT_RATIOS)
    width = options.head_width or spec.head_width
    make_head = spec.head or LinearHead
    make_predictor = ClassAgnosticPredictor if options.class_agnostic else Float32Predictor
    backbone.out_channels = spec.out_channels
    detector = FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=Float32RPNHead(spec.out_channels, anchors.num_anchors_per_location()[0], conv_depth=spec.rpn_convs),
        box_roi_pool=RoIPool({str(i): stride for i, stride in enumerate(spec.strides)}),
        box_head=make_head(spec.out_channels, width),
        box_predictor=make_predictor(width, num_classes),
        **{**(spec.detector or {}), **options.torchvision_arguments(), **torchvision_options},
    )
    detector.spec, detector.build_options = spec, options
    detector.use_torchvision_ops = options.detector == "torchvision"
    _freeze(detector)
    return detector


def set_anchors(detector: FasterRCNN, sizes: Sequence[float], ratios: Sequence[float]) -> None:
    """Give a built detector other anchors, as many as it has, and remember them in its build options.

    Raises:
        ModelError: their number differs, which would need another RPN.
    """
    options = replace(detector.build_options, anchor_sizes=tuple(sizes), aspect_ratios=tuple(ratios))
    anchors = _anchors(detector.spec, options.anchor_sizes, options.aspect_ratios)
    old, new = (a.num_anchors_per_location() for a in (detector.rpn.anchor_generator, anchors))
    if old != new:
        raise ModelError(f"{new[0]} anchors per place do not fit this detector, which has {old[0]}")
    detector.rpn.anchor_generator, detector.build_options = anchors, options


def with_fpn(body: nn.Module, maps: Mapping[str, int], *, norm_layer: type[nn.Module] | None = None) -> BackboneWithFPN:
    """A feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) over maps of `body`, plus a pooled one.

    Args:
        body: its direct children are called in order; those after the last of `maps` are cut off.
        maps: child -> channels of its output, finest first.
        norm_layer: in the pyramid; none without.
    """
    names = {child: str(level) for level, child in enumerate(maps)}
    return BackboneWithFPN(body, names, list(maps.values()), FPN_CHANNELS, norm_layer=norm_layer)


def stages_of(spec: BackboneSpec, backbone: nn.Module) -> Stages:
    """The steps in which a backbone is frozen, from the image on, as parameter-name prefixes within it.

    Of a Sequential without declared stages: its children that have parameters; a norm goes with what precedes it.
    """
    if spec.stages is not None:
        return spec.stages
    stages: list[tuple[str, ...]] = []
    for name, child in backbone.named_children() if isinstance(backbone, nn.Sequential) else ():
        if stages and name in batch_norms(backbone):
            stages[-1] += (name,)
        elif any(True for _ in child.parameters()):
            stages.append((name,))
    return tuple(stages)


def _freeze(detector: FasterRCNN) -> None:
    """Leave the first stages, and batch norms that are to stay as they are, out of the training."""
    spec, options, backbone = detector.spec, detector.build_options, detector.backbone
    stages = stages_of(spec, backbone)
    count = spec.frozen_stages if options.freeze is None else options.freeze
    if count > len(stages):
        raise ModelError(f"freeze is {count}, and this backbone has {len(stages)} stages: give at most those")
    frozen = [prefix for stage in stages[:count] for prefix in stage]
    for name, parameter in backbone.named_parameters():
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in frozen):
            parameter.requires_grad_(False)
    if options.norm == "frozen" and not batch_norms(backbone):
        raise ModelError("norm is 'frozen', and this backbone has no batch norms: leave --norm out")
    kept = [name for name in frozen if name in dict(backbone.named_modules())]
    if options.norm == "frozen" or (options.norm == "own" and spec.frozen_norm):
        norms = batch_norms(backbone)
        for name in norms:
            backbone.get_submodule(name).requires_grad_(False)
        kept += norms
    kept += [name for name, module in backbone.named_modules() if _is_frozen(module)]
    detector.stages = tuple(tuple(f"backbone.{prefix}" for prefix in stage) for stage in stages)
    detector.frozen_modules = tuple(dict.fromkeys(f"backbone.{name}".rstrip(".") for name in kept))


def _is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters, none of which is trained."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _anchors(spec: BackboneSpec, sizes: Sequence[float], ratios: Sequence[float]) -> Float32Anchors:
    levels = len(spec.levels)
    if not spec.one_anchor_size_per_level:
        shared = [tuple(sizes)] * levels
    elif len(sizes) % levels == 0:
        each = len(sizes) // levels
        shared = [tuple(sizes[i * each : (i + 1) * each]) for i in range(levels)]
    else:
        raise ModelError(
            f"anchor_sizes has {len(sizes)} sizes, and this model has {levels} levels to share them out among: "
            f"give {levels}, or a multiple of it"
        )
    return Float32Anchors(tuple(shared), (tuple(ratios),) * levels)


def _checkpoint_activations(backbone: nn.Module) -> None:
    if not hasattr(backbone, "set_grad_checkpointing"):
        raise ModelError(
            "activation_checkpointing: this backbone cannot; fasterrcnn_vitdet, fasterrcnn_dinov3_* and most timm/ "
            "models can: leave --activation-checkpointing out"
        )
    backbone.set_grad_checkpointing(True)
