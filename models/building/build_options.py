"""Options of a network beyond its name; checkpoints store them, so that the same network is built again."""

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.rcnn.errors import ModelError

# utils/cli/train_options.py declares these two for --help, which must not import models; a test keeps them equal.
NORMS = ("own", "frozen", "batch", "group")
DETECTORS = ("fast", "torchvision")
_LEAST = {"freeze": 0, "rois_per_image": 1, "proposals": 1, "head_width": 1, "detections": 1}  # whole numbers
_MOST = 65_536  # of them all: beyond any use, within any memory
_MOST_ANCHORS = 64  # sizes, or ratios
RESHAPING = ("norm", "anchor_sizes", "aspect_ratios", "head_width", "class_agnostic")  # weights may not fit any more
_FRACTIONS = ("rpn_nms", "nms")
_SERIES = ("anchor_sizes", "aspect_ratios")
_SWITCHES = ("class_agnostic", "activation_checkpointing")


@dataclass(frozen=True)
class BuildOptions:
    """A user's choices for a network; None: the model's default.

    norm: batch norms of the backbone: "own" as the model's weights were published; "frozen" keeps statistics and
        weights; "batch" trains them, which a start from random weights needs; "group" replaces them by group norms of
        32 groups (Wu and He 2018, https://arxiv.org/abs/1803.08494), also for random starts.
    freeze: number of stages of the backbone that are not trained, counted from the image.
    rois_per_image: proposals per image that train the box head.
    proposals: per image, of the RPN.
    anchor_sizes: px, sides of square anchors; a feature pyramid divides them among its levels, smallest first.
    aspect_ratios: height / width of anchors.
    head_width: outputs of the box head.
    rpn_nms, nms: IoU above which the lower-scored of two proposals, or of two detections of a class, is dropped.
    detections: largest number per image.
    class_agnostic: one box regression for all classes instead of one each.
    activation_checkpointing: recompute the backbone's activations instead of storing them: less memory, slower.
    detector: code of everything but the layers: ours ("fast"), or torchvision's, the reference.
    """

    norm: str = "own"
    freeze: int | None = None
    rois_per_image: int = 512
    proposals: int | None = None
    anchor_sizes: tuple[float, ...] | None = None
    aspect_ratios: tuple[float, ...] | None = None
    head_width: int | None = None
    rpn_nms: float | None = None
    nms: float | None = None
    detections: int | None = None
    class_agnostic: bool = False
    activation_checkpointing: bool = False
    detector: str = "fast"

    def __post_init__(self) -> None:
        for name, known in (("norm", NORMS), ("detector", DETECTORS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ModelError(f"{name} is {reprlib.repr(value)}, expected one of {', '.join(known)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name != "rois_per_image":
                continue
            if type(value) is not int or value < least:
                raise ModelError(f"{name} is {value!r}, expected a whole number of at least {least}")
            if value > _MOST:
                raise ModelError(f"{name} is {reprlib.repr(value)}, expected at most {_MOST}")
        for name in _FRACTIONS:
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise ModelError(f"{name} is {value!r}, expected a number from 0 to 1")
        for name in _SWITCHES:
            if type(getattr(self, name)) is not bool:
                raise ModelError(f"{name} is {getattr(self, name)!r}, expected true or false")
        for name in _SERIES:
            value = getattr(self, name)
            if value is None:
                continue
            good = isinstance(value, (list, tuple)) and 0 < len(value) <= _MOST_ANCHORS
            if not good or not all(_is_number(v) and 0 < v < 1e6 for v in value):
                expected = f"one to {_MOST_ANCHORS} numbers above 0"
                raise ModelError(f"{name} is {reprlib.repr(value)}, expected {expected}")
            object.__setattr__(self, name, tuple(sorted(map(float, value))))

    def as_dict(self) -> dict[str, Any]:
        """Plain values: BuildOptions(**options.as_dict()) == options."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def torchvision_arguments(self) -> dict[str, Any]:
        """Arguments of torchvision's FasterRCNN that the options set."""
        arguments: Mapping[str, Any] = {
            "rpn_post_nms_top_n_train": self.proposals,
            "rpn_post_nms_top_n_test": self.proposals,
            "rpn_nms_thresh": self.rpn_nms,
            "box_nms_thresh": self.nms,
            "box_detections_per_img": self.detections,
            "box_batch_size_per_image": self.rois_per_image,
        }
        return {name: value for name, value in arguments.items() if value is not None}


PUBLISHED = BuildOptions()  # a start from published weights
RANDOM = BuildOptions(norm="batch", freeze=0)  # a start from random weights: no layer or norm may be frozen


def default_options(pretrained: bool) -> BuildOptions:
    """PUBLISHED where published weights are loaded, RANDOM where nothing is: for create_model and train.py alike."""
    return PUBLISHED if pretrained else RANDOM


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
