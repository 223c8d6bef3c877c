"""The registry: model name -> builder, one file each, imported when asked for.

create_model["fasterrcnn_resnet18"](num_classes=5, pretrained=False)
"""

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ModelError

if TYPE_CHECKING:
    from models.rcnn.detector import FasterRCNN

COCO_CLASSES = 91


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
    return builder(num_classes=COCO_CLASSES, pretrained=True)


def create_from_checkpoint(
    checkpoint: Mapping[str, Any], *, num_classes: int | None = None, **changes: Any
) -> "FasterRCNN":
    """The detector of a checkpoint, with its weights; nothing is fetched.

    Args:
        checkpoint: model_name, model_state_dict and model_options, as torch_utils/checkpoint.py reads them.
        num_classes: with the background; another number than the checkpoint's gets a new, random box predictor.
        changes: BuildOptions to set differently.

    Raises:
        ModelError: unknown model, or weights that do not fit it.
    """
    from models.builder import PUBLISHED, BuildOptions
    from models.pretrained import PREDICTOR, load_state

    state = dict(checkpoint["model_state_dict"])
    saved_classes = len(state.get("roi_heads.box_predictor.cls_score.bias", ()))
    saved = checkpoint.get("model_options")
    options = BuildOptions(**saved) if saved else PUBLISHED  # the predecessor always built on published weights
    detector = create_model[checkpoint["model_name"]](
        num_classes or saved_classes, pretrained=False, options=replace(options, **changes)
    )
    if num_classes in (None, saved_classes):
        load_state(detector, state)
    else:
        kept = {key: value for key, value in state.items() if not key.startswith(PREDICTOR)}
        load_state(detector, kept, missing_allowed=PREDICTOR)
    return detector
