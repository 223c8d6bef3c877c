"""From a backbone to a detector: the only place that decides on anchors, RoI pooling and heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d

from models.errors import ModelError
from models.rcnn.detector import FasterRCNN, Float32Anchors, Float32Predictor, Float32RPNHead
from models.rcnn.roi_pool import SIDE, RoIPool

ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, side of a square anchor; FPN paper section 4.1
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
FPN_CHANNELS = 256
NORMS = ("frozen", "batch")


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone gives, declared once; anchors, pooling and heads follow from it."""

    out_channels: int
    strides: tuple[int, ...]  # px per cell of each map that regions are pooled from, finest first
    extra_levels: int = 0  # coarser maps that only the RPN sees
    one_anchor_size_per_level: bool = False  # an FPN's levels share the anchor sizes out; otherwise each has all five
    head_width: int = 1024
    rpn_convs: int = 1
    head: Callable[[int, int], nn.Module] | None = None  # (channels, width) -> box head, instead of two linear layers
    detector: Mapping[str, Any] | None = None  # torchvision FasterRCNN arguments that this model has other defaults for


@dataclass(frozen=True)
class BuildOptions:
    """How a network is built beyond its name: checkpoints carry these, so that the same network is built again.

    norm: batch normalisation of FPN backbones that torchvision freezes: "frozen" keeps the statistics of published
        weights, "batch" trains them, which a start from random weights needs. Single-map backbones always train them.
    trainable_layers: of an FPN backbone, counted from its end; None: all.
    rois_per_image: proposals per image that train the box head.
    proposals: per image that the RPN hands on; None: the model's own numbers.
    """

    norm: str = "frozen"
    trainable_layers: int | None = None
    rois_per_image: int = 512
    proposals: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.norm, str) or self.norm not in NORMS:
            raise ModelError(f"norm is {self.norm!r}, expected one of {', '.join(NORMS)}")
        for name, least in (("trainable_layers", 0), ("rois_per_image", 1), ("proposals", 1)):
            value = getattr(self, name)
            if value is None and name != "rois_per_image":
                continue
            if type(value) is not int or value < least:
                raise ModelError(f"{name} is {value!r}, expected a whole number of at least {least}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values: BuildOptions(**options.as_dict()) == options."""
        return asdict(self)

    @property
    def norm_layer(self) -> type[nn.Module]:
        """The class of an FPN backbone's norms; both have the same state-dict keys."""
        return FrozenBatchNorm2d if self.norm == "frozen" else UncountedBatchNorm2d


PUBLISHED = BuildOptions(norm="frozen", trainable_layers=3)  # how torchvision goes on from published weights
RANDOM = BuildOptions(norm="batch")  # norms without statistics must not be frozen


class UncountedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm without num_batches_tracked, which only a momentum of None reads: FrozenBatchNorm2d's keys."""

    def __init__(self, num_features: int, **options: Any) -> None:
        super().__init__(num_features, **options)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        nn.Module._load_from_state_dict(self, state_dict, prefix, *others)  # BatchNorm2d's would ask for the counter


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
    """
    levels = len(spec.strides) + spec.extra_levels
    sizes = [(size,) for size in ANCHOR_SIZES] if spec.one_anchor_size_per_level else [ANCHOR_SIZES] * levels
    anchors = Float32Anchors(tuple(sizes), (ASPECT_RATIOS,) * levels)
    make_head = spec.head or _two_linear_layers
    backbone.out_channels = spec.out_channels
    proposals = {}
    if options.proposals is not None:
        proposals = {f"rpn_post_nms_top_n_{mode}": options.proposals for mode in ("train", "test")}
    detector = FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=Float32RPNHead(spec.out_channels, anchors.num_anchors_per_location()[0], conv_depth=spec.rpn_convs),
        box_roi_pool=RoIPool({str(i): stride for i, stride in enumerate(spec.strides)}),
        box_head=make_head(spec.out_channels, spec.head_width),
        box_predictor=Float32Predictor(spec.head_width, num_classes),
        box_batch_size_per_image=options.rois_per_image,
        **{**(spec.detector or {}), **proposals, **torchvision_options},
    )
    detector.build_options = options
    return detector


def with_fpn(
    body: nn.Module,
    stages: Mapping[str, int],
    freezable: Sequence[Sequence[str]],
    options: BuildOptions,
    *,
    norm_layer: type[nn.Module] | None = None,
) -> BackboneWithFPN:
    """A feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) over stages of `body`, plus a pooled map.

    Args:
        body: its direct children are named in `stages` and `freezable`; those after the last stage are cut off.
        stages: child -> channels of its output, finest first.
        freezable: groups of children from first to last; options.trainable_layers of them, from the end, are trained.
        norm_layer: in the pyramid; none without.
    """
    trainable = len(freezable) if options.trainable_layers is None else options.trainable_layers
    if trainable > len(freezable):
        raise ModelError(f"trainable_layers is {trainable}, and this backbone has {len(freezable)}: give at most those")
    for child in (child for group in freezable[: len(freezable) - trainable] for child in group):
        body.get_submodule(child).requires_grad_(False)
    names = {stage: str(level) for level, stage in enumerate(stages)}
    return BackboneWithFPN(body, names, list(stages.values()), FPN_CHANNELS, norm_layer=norm_layer)


def with_synchronized_batchnorm(model: nn.Module) -> nn.Module:
    """`model`, its batch norms replaced by ones over all processes; parameters and state-dict keys stay the same.

    torch's SyncBatchNorm counts batches, which UncountedBatchNorm2d does not: it gets a counter that no file holds.
    """
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for norm in model.modules():
        if isinstance(norm, nn.SyncBatchNorm) and norm.num_batches_tracked is None:
            counter = torch.zeros((), dtype=torch.int64, device=norm.running_mean.device)
            norm.register_buffer("num_batches_tracked", counter, persistent=False)
    return model


def _two_linear_layers(channels: int, width: int) -> nn.Module:
    return TwoMLPHead(channels * SIDE**2, width)
