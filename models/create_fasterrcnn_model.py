"""The registry: model name -> builder. Each model is a file, imported on demand.

create_model["fasterrcnn_resnet18"](num_classes=5, pretrained=False)
create_model["timm/resnet18.a1_in1k"](num_classes=5)

python -m models.create_fasterrcnn_model lists the models.
"""

import argparse
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from models.headers import read_header, text_table, update_page
from models.rcnn.errors import ModelError, WeightsNotHereError

if TYPE_CHECKING:
    from models.rcnn.detector import FasterRCNN

COCO_CLASSES = 91
DEFAULT_COCO_MODEL = "fasterrcnn_resnet50_fpn_v2"


_LONG = 80  # characters of a name that a message repeats
_LIBRARIES = {  # prefix of the names of a library's nets -> module and function that make a backbone of one
    "timm/": ("models.backbones.timm_fpn", "timm_backbone"),
    "torchvision/": ("models.backbones.torchvision_fpn", "torchvision_backbone"),
}


class _Registry(Mapping[str, "Callable[..., FasterRCNN]"]):
    """Names are the files models/fasterrcnn_*.py, and any timm/NAME and torchvision/NAME; listing imports none."""

    def __getitem__(self, name: str) -> "Callable[..., FasterRCNN]":
        builder = _import("models.building.builder")
        library = _library(name)
        if library is not None:
            module, function = _LIBRARIES[library]
            make = getattr(_import(module), function)
            return partial(builder.build_on_library_net, make, name.removeprefix(library))
        definition = self.definition(name)
        if hasattr(definition, "create_model"):
            return _former_builder(name, definition.create_model)
        if not (hasattr(definition, "SPEC") and hasattr(definition, "backbone")):
            raise ModelError(f"models/{name}.py lacks SPEC or backbone(): see docs/custom_backbone.md")
        return partial(builder.build_model, definition)

    def definition(self, name: str) -> ModuleType:
        """Import the file of a model.

        Raises:
            ModelError: there is no such file, or it needs a package that is not installed.
        """
        if name not in list(self):
            near = difflib.get_close_matches(name, list(self), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self)}"
            raise ModelError(f"unknown model {name[:_LONG]!r}: {hint}")
        _import("models.building.former_names").install()
        try:
            return _import(f"models.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("models"):
                raise
            package = error.name.split(".")[0]
            raise ModelError(f"{name} needs the package {package}: pip install {package}") from None

    def __contains__(self, name: object) -> bool:
        return name in list(self) or (isinstance(name, str) and _library(name) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in Path(__file__).parent.glob("fasterrcnn_*.py")))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _library(name: str) -> str | None:
    """The prefix of the name of a library's net; None for other names."""
    return next((prefix for prefix in _LIBRARIES if name.startswith(prefix)), None)


def _former_builder(name: str, create: "Callable[..., FasterRCNN]") -> "Callable[..., FasterRCNN]":
    """The create_model of a user's file of an older version, which builds the detector itself."""
    parameters = inspect.signature(create).parameters.values()
    if any(p.name == "options" or p.kind is p.VAR_KEYWORD for p in parameters):
        return create

    def build(num_classes: int, pretrained: bool = True, options: object = None, **others: Any) -> "FasterRCNN":
        if options is not None:
            raise ModelError(
                f"create_model of models/{name}.py takes no options, so it cannot be trained or opened here: give the "
                "file SPEC and backbone() instead, see docs/custom_backbone.md"
            )
        return create(num_classes, pretrained=pretrained, **others)

    return build


def _import(module: str) -> ModuleType:
    """Import a module in a new thread.

    `with torch.device("meta")` of the caller is limited to its thread, and torchvision 0.22 cannot be imported inside.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(importlib.import_module, module).result()


create_model = _Registry()


@dataclass(frozen=True)
class OpenedDetector:
    """A detector that is ready to use, and the settings of its training."""

    model: "FasterRCNN"
    name: str
    class_names: tuple[str, ...]  # class_names[0] is the background
    size_rule: Mapping[str, Any]  # size, max_size, square
    size_is_known: bool  # False: a file of the predecessor, which does not store the size; this is torchvision's
    best_threshold: float | None = None  # score of the best mean F1 in validation; None: not stored
    class_thresholds: Mapping[str, float | None] | None = None  # per class; None: a class without boxes


def open_detector(
    checkpoint: Mapping[str, Any] | None, name: str | None, *, default: str = DEFAULT_COCO_MODEL
) -> OpenedDetector:
    """The detector of a checkpoint, or without one a model with COCO weights.

    Args:
        checkpoint: as torch_utils/checkpoint.py reads it.
        name: the model that the user asks for; with a checkpoint it must be the checkpoint's.
        default: the model where there is neither checkpoint nor name.

    Raises:
        ModelError: unknown name, another name than the checkpoint's, a damaged or misfitting checkpoint, or no
            published weights.
    """
    if checkpoint is None:
        name = name or default
        model = create_coco_model(name)
        class_names = create_model.definition(name).COCO_WEIGHTS.meta["categories"]
        return OpenedDetector(model, name, tuple(class_names), _default_size(model), size_is_known=True)
    from models.building.saved import saved_class_names, saved_class_thresholds, saved_size_rule, saved_threshold

    saved_name = checkpoint["model_name"]
    if name not in (None, saved_name):
        create_model[name]  # an unknown name is the more likely mistake
        raise ModelError(f"--model {name} is not the model of the checkpoint, which is {saved_name}: drop --model")
    model = create_from_checkpoint(checkpoint)
    class_names = saved_class_names(checkpoint, model.roi_heads.box_predictor.cls_score.out_features)
    size_rule = saved_size_rule(checkpoint)
    return OpenedDetector(
        model,
        saved_name,
        class_names,
        size_rule or _default_size(model),
        size_rule is not None,
        saved_threshold(checkpoint),
        saved_class_thresholds(checkpoint),
    )


def _default_size(model: "FasterRCNN") -> dict[str, Any]:
    return {"size": model.transform.min_size[0], "max_size": model.transform.max_size, "square": False}


def create_coco_model(name: str) -> "FasterRCNN":
    """A detector of COCO's 91 classes with published weights.

    Raises:
        ModelError: unknown name, no published weights, or they cannot be fetched.
    """
    builder = create_model[name]
    with_weights = [header.name for header in map(read_header, create_model) if header.has_coco_weights]
    if name not in with_weights:
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
        ModelError: unknown model, invalid options or weights, or weights that do not fit the model.
    """
    from models.building.build_options import RESHAPING
    from models.building.pretrained import PREDICTOR, load_state
    from models.building.saved import count_classes, saved_options, saved_state

    state = saved_state(checkpoint)
    saved_classes = count_classes(state)
    options = replace(saved_options(checkpoint), **changes)
    classes = num_classes or saved_classes or 1  # without a predictor, load_state reports the missing keys
    name = checkpoint["model_name"]
    build = create_model[name]
    legacy = None if _library(name) else getattr(create_model.definition(name), "LEGACY", None)
    if legacy is not None and (converted := legacy.convert(state)) is not None:
        build, state = partial(build, layout="legacy"), converted
    detector = build(classes, pretrained=False, options=options)
    missing_allowed = None
    if num_classes not in (None, saved_classes):
        state = {key: value for key, value in state.items() if not key.startswith(PREDICTOR)}
        missing_allowed = PREDICTOR
    try:
        load_state(detector, state, missing_allowed=missing_allowed)
    except ModelError as error:
        reshaping = [name for name in changes if name in RESHAPING]
        if not reshaping:
            raise
        misfit = str(error).rpartition(": ")[0]
        raise ModelError(f"{misfit}: {', '.join(reshaping)} may not fit a finished model: leave that out") from None
    return detector


def main() -> None:
    """Print the table of models; with --docs write it into docs/models.md."""
    parser = argparse.ArgumentParser("python -m models.create_fasterrcnn_model", description=main.__doc__)
    parser.add_argument("--docs", "--readme", action="store_true", help="write the table into docs/models.md")
    headers = [read_header(name) for name in create_model]
    if parser.parse_args().docs:
        update_page(Path(__file__).parent.parent / "docs" / "models.md", headers)
        return
    print(text_table(headers))
    print(
        "\nAlso timm/NAME and torchvision/NAME: a feature pyramid on any of their networks. Parameters at 21 classes;\n"
        "GFLOPs (multiply-adds) of one image of 640 x 640 px; strides of the feature maps that have anchors."
    )


if __name__ == "__main__":
    main()
