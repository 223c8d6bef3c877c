"""The registry: model name -> builder, one file each, imported when asked for.

create_model["fasterrcnn_resnet18"](num_classes=5, pretrained=False)
"""

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelError, WeightsNotHereError

if TYPE_CHECKING:
    from models.rcnn.detector import FasterRCNN

COCO_CLASSES = 91
DEFAULT_COCO_MODEL = "fasterrcnn_resnet50_fpn_v2"


class _Registry(Mapping[str, "Callable[..., FasterRCNN]"]):
    """Names are the files models/fasterrcnn_*.py; listing them imports none."""

    def __getitem__(self, name: str) -> "Callable[..., FasterRCNN]":
        if name not in self:
            near = difflib.get_close_matches(name, list(self), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self)}"
            raise ModelError(f"unknown model {name!r}: {hint}")
        return importlib.import_module(f"models.{name}").create_model

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in Path(__file__).parent.glob("fasterrcnn_*.py")))

    def __len__(self) -> int:
        return len(list(iter(self)))


create_model = _Registry()


@dataclass(frozen=True)
class OpenedDetector:
    """A detector that is ready to use, and what it was trained with."""

    model: "FasterRCNN"
    name: str
    class_names: tuple[str, ...]  # class_names[0] is the background
    size_rule: Mapping[str, Any]  # size, max_size, square
    size_is_known: bool  # False: a file of the predecessor, which does not say its size; this is torchvision's


def open_detector(
    checkpoint: Mapping[str, Any] | None, name: str | None, *, default: str = DEFAULT_COCO_MODEL
) -> OpenedDetector:
    """The detector of a checkpoint, or without one a model with COCO weights.

    Args:
        checkpoint: as torch_utils/checkpoint.py reads it.
        name: the model that the user asks for; with a checkpoint it must be the checkpoint's.
        default: the model where there is neither checkpoint nor name.

    Raises:
        ModelError: unknown name, the checkpoint's model has another name or other shapes, the checkpoint holds what no
            detector is built of, or no weights are to be had.
    """
    if checkpoint is None:
        name = name or default
        model = create_coco_model(name)
        class_names = importlib.import_module(f"models.{name}").COCO_WEIGHTS.meta["categories"]
        return OpenedDetector(model, name, tuple(class_names), _own_size(model), size_is_known=True)
    from models.saved import saved_class_names, saved_size_rule

    saved_name = checkpoint["model_name"]
    if name not in (None, saved_name):
        create_model[name]  # an unknown name is the more likely mistake
        raise ModelError(f"--model {name} is not the model of the checkpoint, which is {saved_name}: drop --model")
    model = create_from_checkpoint(checkpoint)
    class_names = saved_class_names(checkpoint, model.roi_heads.box_predictor.cls_score.out_features)
    size_rule = saved_size_rule(checkpoint)
    return OpenedDetector(model, saved_name, class_names, size_rule or _own_size(model), size_rule is not None)


def _own_size(model: "FasterRCNN") -> dict[str, Any]:
    return {"size": model.transform.min_size[0], "max_size": model.transform.max_size, "square": False}


def create_coco_model(name: str) -> "FasterRCNN":
    """A detector of COCO's 91 classes with published weights.

    Raises:
        ModelError: unknown name, no such weights, or no way to fetch them.
    """
    builder = create_model[name]
    if not getattr(importlib.import_module(builder.__module__), "COCO_WEIGHTS", None):
        with_weights = [n for n in create_model if hasattr(importlib.import_module(f"models.{n}"), "COCO_WEIGHTS")]
        raise ModelError(
            f"{name} has no published COCO weights: pass --weights with a checkpoint of your own, "
            f"or one of {', '.join(with_weights)}"
        )
    try:
        return builder(num_classes=COCO_CLASSES, pretrained=True)
    except WeightsNotHereError as error:
        raise ModelError(f"{error.situation}, or give --weights of a detector of your own") from None


def create_from_checkpoint(
    checkpoint: Mapping[str, Any], *, num_classes: int | None = None, **changes: Any
) -> "FasterRCNN":
    """The detector of a checkpoint, with its weights; nothing is fetched.

    Args:
        checkpoint: model_name, model_state_dict and model_options, as torch_utils/checkpoint.py reads them.
        num_classes: with the background; another number than the checkpoint's gets a new, random box predictor.
        changes: BuildOptions to set differently.

    Raises:
        ModelError: unknown model, options or weights that are none, or weights that do not fit it.
    """
    from models.pretrained import PREDICTOR, load_state
    from models.saved import count_classes, saved_options, saved_state

    state = saved_state(checkpoint)
    saved_classes = count_classes(state)
    options = replace(saved_options(checkpoint), **changes)
    classes = num_classes or saved_classes or 1  # without any, load_state will say what is missing
    detector = create_model[checkpoint["model_name"]](classes, pretrained=False, options=options)
    if num_classes in (None, saved_classes):
        load_state(detector, state)
    else:
        kept = {key: value for key, value in state.items() if not key.startswith(PREDICTOR)}
        load_state(detector, kept, missing_allowed=PREDICTOR)
    return detector
