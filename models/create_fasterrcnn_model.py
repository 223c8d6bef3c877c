"""The registry: model name -> builder, one file each, imported when asked for.

create_model["fasterrcnn_resnet18"](num_classes=5, pretrained=False)
"""

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
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


def create_from_checkpoint(checkpoint: Mapping[str, Any]) -> "FasterRCNN":
    """The detector of a checkpoint, with its weights; nothing is fetched.

    Args:
        checkpoint: model_name, model_state_dict and model_options, as torch_utils/checkpoint.py reads them.

    Raises:
        ModelError: the weights do not fit the model.
    """
    from models.builder import PUBLISHED, BuildOptions
    from models.pretrained import load_state

    state = checkpoint["model_state_dict"]
    num_classes = len(state["roi_heads.box_predictor.cls_score.bias"])
    saved = checkpoint.get("model_options")
    options = BuildOptions(**saved) if saved else PUBLISHED  # the predecessor always built on published weights
    detector = create_model[checkpoint["model_name"]](num_classes, pretrained=False, options=options)
    load_state(detector, state)
    return detector
