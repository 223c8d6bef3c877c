"""Build a detector from a backbone: the only module that decides on anchors, RoI pooling, heads and freezing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.building.backbone_spec import ANCHOR_SIZES, ASPECT_RATIOS, BackboneSpec, Stages
from models.building.build_options import BuildOptions, default_options
from models.building.norms import batch_norms, replace_by_group_norms
from models.building.pretrained import load_coco
from models.rcnn.anchors import Float32Anchors
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.layers import ClassAgnosticPredictor, Float32Predictor, Float32RPNHead, LinearHead
from models.rcnn.roi_heads import BatchedRoIHeads
from models.rcnn.roi_pool import RoIPool
from models.rcnn.rpn import BatchedRPN

_TRANSFORM = {  # torchvision's defaults; mean and standard deviation of ImageNet, RGB in 0..1
    "min_size": 800,
    "max_size": 1333,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


class ModelDefinition(Protocol):
    """The contents of a model file.

    It may have two more attributes: COCO_WEIGHTS, torchvision's weights of the whole detector, and LEGACY, a
    LegacyLayout.
    """

    SPEC: BackboneSpec

    def backbone(self, pretrained: bool, options: BuildOptions) -> nn.Module:
        """(B, 3, H, W) normalized images -> one map, or a dict of maps "0", "1", ... and others for the RPN alone.

        Args:
            pretrained: load published weights, if the model has some for its backbone.
            options: for what a backbone must know when it is built, such as `norm`.
        """


@dataclass(frozen=True)
class LegacyLayout:
    """A ModelDefinition for checkpoints with other layers or keys than today's."""

    SPEC: BackboneSpec
    backbone: Callable[[bool, BuildOptions], nn.Module]
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor] | None]  # state dict -> this layout's; None: not legacy


def build_model(
    definition: ModelDefinition,
    num_classes: int,
    pretrained: bool = True,
    options: BuildOptions | None = None,
    *,
    layout: str = "pyramid",
    **detector_options: Any,
) -> FasterRCNN:
    """Build the detector of a model file.

    Args:
        definition: the module of the file.
        num_classes: with the background.
        pretrained: load published weights, of the whole detector or of its backbone.
        options: without, `default_options(pretrained)`.
        layout: "pyramid", today's layout; "legacy", that of old checkpoints, for models that have one.
        detector_options: see build_fasterrcnn.

    Raises:
        ModelError: options that do not fit, an unknown layout, or the weights cannot be loaded.
    """
    if layout != "pyramid":
        if layout != "legacy" or not hasattr(definition, "LEGACY"):
            known = ["pyramid", *(["legacy"] if hasattr(definition, "LEGACY") else [])]
            raise ModelError(f"layout is {layout!r}, expected one of {', '.join(known)}")
        definition = definition.LEGACY
    options = options or default_options(pretrained)
    backbone = definition.backbone(pretrained, options)
    detector = build_fasterrcnn(backbone, definition.SPEC, num_classes, options, **detector_options)
    if pretrained and hasattr(definition, "COCO_WEIGHTS"):
        load_coco(detector, definition.COCO_WEIGHTS, num_classes)
    return detector


def build_on_library_net(
    make: Callable[[str, bool], tuple[nn.Module, BackboneSpec]],
    name: str,
    num_classes: int,
    pretrained: bool = True,
    options: BuildOptions | None = None,
    **detector_options: Any,
) -> FasterRCNN:
    """Build a detector on a network of a library, such as timm; further arguments as build_model.

    Args:
        make: (name of the network, pretrained) -> backbone and its spec.
        name: of the network, without the library's prefix.
    """
    backbone, spec = make(name, pretrained)
    return build_fasterrcnn(backbone, spec, num_classes, options or default_options(pretrained), **detector_options)


def build_fasterrcnn(
    backbone: nn.Module,
    spec: BackboneSpec,
    num_classes: int,
    options: BuildOptions,
    **torchvision_options: Any,
) -> FasterRCNN:
    """Build a detector on `backbone`, which gives one map or a dict of maps, see ModelDefinition.

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
    arguments = {**(spec.detector or {}), **options.torchvision_arguments(), **torchvision_options}
    # The order of the layers is that in which they draw random numbers.
    rpn = BatchedRPN(
        anchors,
        Float32RPNHead(spec.out_channels, anchors.num_anchors_per_location()[0], conv_depth=spec.rpn_convs),
        **_pop_prefixed(arguments, "rpn_"),
    )
    roi_heads = BatchedRoIHeads(
        RoIPool({str(i): stride for i, stride in enumerate(spec.strides)}),
        make_head(spec.out_channels, width),
        make_predictor(width, num_classes),
        **_pop_prefixed(arguments, "box_"),
        **_pop_prefixed(arguments, "bbox_"),
    )
    stages, frozen_modules = _freeze(backbone, spec, options)
    return FasterRCNN(
        backbone,
        rpn,
        roi_heads,
        GeneralizedRCNNTransform(**_TRANSFORM | {key: value for key, value in arguments.items() if value is not None}),
        spec=spec,
        build_options=options,
        stages=stages,
        frozen_modules=frozen_modules,
        use_torchvision_ops=options.detector == "torchvision",
    )


def set_anchors(detector: FasterRCNN, sizes: Sequence[float], ratios: Sequence[float]) -> None:
    """Replace the anchors of a detector by the same number of others, and store them in its build options.

    Raises:
        ModelError: the number differs, which would need another RPN.
    """
    options = replace(detector.build_options, anchor_sizes=tuple(sizes), aspect_ratios=tuple(ratios))
    anchors = _anchors(detector.spec, options.anchor_sizes, options.aspect_ratios)
    old, new = (a.num_anchors_per_location() for a in (detector.rpn.anchor_generator, anchors))
    if old != new:
        raise ModelError(f"{new[0]} anchors per cell do not fit this detector, which has {old[0]}")
    detector.rpn.anchor_generator, detector.build_options = anchors, options


def stages_of(spec: BackboneSpec, backbone: nn.Module) -> Stages:
    """The groups in which a backbone is frozen, from the image on, as parameter-name prefixes within it.

    For a Sequential without declared stages: its children with parameters; a norm joins the group before it.
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


def _pop_prefixed(arguments: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Remove the arguments whose names have a prefix, and return them without it."""
    names = [name for name in arguments if name.startswith(prefix)]
    return {name.removeprefix(prefix): arguments.pop(name) for name in names}


def _freeze(backbone: nn.Module, spec: BackboneSpec, options: BuildOptions) -> tuple[Stages, tuple[str, ...]]:
    """Freeze the first stages of the backbone, and its batch norms where the options or the spec require it.

    Returns:
        All stages, and the names of the modules that stay in eval mode; names within the detector.
    """
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
    frozen_modules = tuple(dict.fromkeys(f"backbone.{name}".rstrip(".") for name in kept))
    return tuple(tuple(f"backbone.{prefix}" for prefix in stage) for stage in stages), frozen_modules


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
