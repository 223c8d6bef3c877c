"""Read the description of a detector from a checkpoint, and check it before the detector is built.

torch_utils/checkpoint.py opens the file; the errors here name the faulty entry.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from models.building.build_options import PUBLISHED, BuildOptions
from models.building.pretrained import PREDICTOR, checked_state
from models.rcnn.errors import ModelError

# Fields of SizeRule in utils/loading/size_rule.py, which models must not import; a test keeps them equal.
SIZE_RULE = ("size", "max_size", "square")
_FORMAT_1 = ("trainable_layers",)  # model_options that only the first format has
_MOST_PIXELS = 32_768  # of a side
_CHANGED = "the file is damaged or was changed by hand, use another"


def saved_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Parameters and buffers; ModelError if they are anything but dense tensors under their names."""
    return checked_state(checkpoint["model_state_dict"], "model_state_dict of the checkpoint")


def count_classes(state: Mapping[str, Tensor]) -> int:
    """Classes, with the background, that the box predictor of a state dict tells apart; 0 without one."""
    bias = state.get(f"{PREDICTOR}cls_score.bias")
    return len(bias) if bias is not None and bias.ndim == 1 else 0


def saved_options(checkpoint: Mapping[str, Any]) -> BuildOptions:
    """Options the network was built with; ModelError for options or values that this version does not know.

    The predecessor's files lack them: it always built on published weights.
    """
    saved = checkpoint.get("model_options")
    if saved is None:
        return PUBLISHED
    known = [field.name for field in fields(BuildOptions)]
    _check_keys("model_options", saved, [*known, *_FORMAT_1] if checkpoint.get("format") == 1 else known)
    try:
        return BuildOptions(**_from_format_1(saved) if checkpoint.get("format") == 1 else saved)
    except ModelError as error:
        raise ModelError(f"model_options of the checkpoint: {error}: {_CHANGED}") from None


def _from_format_1(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen norms were the models' own then, and layers were counted from the end: 3 of the backbone, or all."""
    kept = {key: value for key, value in saved.items() if key not in _FORMAT_1}
    if kept.get("norm") == "frozen":
        kept["norm"] = "own"
    return kept | {"freeze": 0 if saved.get("trainable_layers") is None else None}


def saved_class_names(checkpoint: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The `count` names of the classes, background first; ModelError if they are not there, or others.

    The predecessor's files have them in the data YAML only.
    """
    where, names = "classes", checkpoint.get("classes")
    if names is None:
        data = checkpoint.get("data")
        where, names = "CLASSES in data", data.get("CLASSES") if isinstance(data, Mapping) else None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        got = "missing" if names is None else f"a {type(names).__name__}, not all of it text"
        raise ModelError(f"{where} of the checkpoint is {got}, expected the list of class names: {_CHANGED}")
    if len(names) != count:
        raise ModelError(
            f"{where} of the checkpoint has {len(names)} names, expected {count}, one for each class of its box "
            f"predictor: {_CHANGED}"
        )
    return tuple(names)


def saved_size_rule(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The size of training as SizeRule's arguments; ModelError for keys or values that this version does not know.

    None: a file of the predecessor, which does not store it.
    """
    rule = checkpoint.get("size_rule")
    if rule is None:
        return None
    _check_keys("size_rule", rule, SIZE_RULE)
    for key, value in {"size": None, **rule}.items():
        if key == "square":
            is_good, expected = isinstance(value, bool), "true or false"
        else:
            is_good = type(value) is int and 1 <= value <= _MOST_PIXELS
            expected = f"a whole number from 1 to {_MOST_PIXELS}"
        if not is_good:
            raise ModelError(f"size_rule of the checkpoint: {key} is {value!r}, expected {expected}: {_CHANGED}")
    return dict(rule)


def saved_threshold(checkpoint: Mapping[str, Any]) -> float | None:
    """The score at which validation's mean F1 was highest; None: the file does not store it.

    Raises:
        ModelError: it is no number from 0 to 1.
    """
    return _threshold("best_threshold", checkpoint.get("best_threshold"))


def saved_class_thresholds(checkpoint: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Class -> the score at which its F1 was highest, None for one without boxes; None: the file does not store it.

    Raises:
        ModelError: one is no number from 0 to 1.
    """
    saved = checkpoint.get("class_thresholds")
    if saved is None:
        return None
    if not isinstance(saved, Mapping):
        raise ModelError(f"class_thresholds of the checkpoint is a {type(saved).__name__}, expected a dict: {_CHANGED}")
    return {str(name): _threshold(f"class_thresholds, {name},", value) for name, value in saved.items()}


def _threshold(label: str, value: object) -> float | None:
    if value is not None and not (isinstance(value, float) and 0 <= value <= 1):
        raise ModelError(
            f"{label} of the checkpoint is {reprlib.repr(value)}, expected a number from 0 to 1: {_CHANGED}"
        )
    return value


def _check_keys(label: str, saved: object, known: Sequence[str]) -> None:
    if not isinstance(saved, Mapping):
        raise ModelError(f"{label} of the checkpoint is a {type(saved).__name__}, expected a dict: {_CHANGED}")
    unknown = [str(key) for key in saved if key not in known]
    if unknown:
        raise ModelError(
            f"{label} of the checkpoint has {', '.join(unknown)}, expected only {', '.join(known)}: "
            "a newer version of this pipeline made it, use that one"
        )
