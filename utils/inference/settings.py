"""What the scripts that use a detector settle before they start: names, classes, thresholds, the folder of results."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.cli.options import BEST, BEST_PER_CLASS
from utils.detect.detector import DetectorInfo
from utils.errors import UserError
from utils.labels.data_config import DataConfig
from utils.run_folder import INFERENCE, given_folder, numbered_folder

log = logging.getLogger(__name__)


def class_names_in_use(info: DetectorInfo, config: DataConfig | None) -> Sequence[str]:
    """The names of --data where it is given, else the detector's own."""
    if config is None:
        return info.class_names
    if len(config.classes) != len(info.class_names):
        raise UserError(
            f"{config.path}: CLASSES has {len(config.classes)} entries, the model {len(info.class_names)}: "
            "drop --data, the model knows its names"
        )
    return config.classes


def check_classes(wished: Sequence[int] | None, class_names: Sequence[str]) -> None:
    """UserError for a class of --classes that there is not."""
    unknown = [k for k in wished or () if not 0 < k < len(class_names)]
    if unknown:
        raise UserError(f"--classes {unknown[0]}: no such class; there are {_listed(class_names)}")


def threshold_in_use(
    wish: float | str,
    of_classes: Mapping[str, float],
    info: DetectorInfo,
    class_names: Sequence[str],
    *,
    typed: bool,
) -> float | np.ndarray:
    """The lowest score to keep, or one for each label, (K,) float64; what the checkpoint proposes is told.

    Args:
        wish: --threshold, a score, BEST or BEST_PER_CLASS.
        of_classes: --class-thresholds, by name or number of the class.
        typed: whether `wish` was, or is the default.

    Raises:
        UserError: the checkpoint proposes nothing, or there is no such class.
    """
    common = _common_threshold(wish, info, typed=typed)
    if not of_classes and wish != BEST_PER_CLASS:
        return common
    each = np.full(len(class_names), common)
    if wish == BEST_PER_CLASS:
        proposed = info.class_thresholds or {}
        each = np.array([common if (own := proposed.get(name)) is None else own for name in info.class_names])
    for name, score in of_classes.items():
        each[_label(name, class_names)] = score
    words = (f"{name} {score:.3f}" for name, score in zip(class_names[1:], each[1:], strict=True) if name != "N/A")
    log.info("Thresholds of the score: %s", ", ".join(words))
    return each


def output_folder(wish: str | None, inputs: Collection[Path] = (), names: Collection[str] = ()) -> Path:
    """--output, or a new numbered folder; never one where a result would take the place of an input.

    Args:
        inputs: files that are read.
        names: of the files that will be written, relative to the folder.
    """
    if wish is None:
        return numbered_folder(INFERENCE)
    folder = Path(wish)
    taken = {path.resolve() for path in inputs}
    if any((folder / name).resolve() in taken for name in names):
        raise UserError(f"--output {wish} holds the input images, which the results would overwrite: choose another")
    return given_folder(folder)


def _common_threshold(wish: float | str, info: DetectorInfo, *, typed: bool) -> float:
    proposed = info.best_threshold
    if wish in (BEST, BEST_PER_CLASS):
        if proposed is None or (wish == BEST_PER_CLASS and info.class_thresholds is None):
            raise UserError(
                f"--threshold {wish}: {info.source} does not say which it is (best_model.pth of a training does): "
                "give a number, such as the one that eval.py prints"
            )
        log.info("Threshold of the score, the best of validation by mean F1: %.3f", proposed)
        return proposed
    if proposed is not None and not typed:
        log.info(
            "Threshold of the score: %g; validation's best mean F1 is at %.3f: --threshold %s", wish, proposed, BEST
        )
    return float(wish)


def _label(name: str, class_names: Sequence[str]) -> int:
    if name in class_names[1:]:
        return list(class_names).index(name, 1)
    if name.isdecimal() and 0 < int(name) < len(class_names):
        return int(name)
    raise UserError(f"--class-thresholds {name}: no such class; there are {_listed(class_names)}")


def _listed(class_names: Sequence[str]) -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(class_names) if i > 0 and name != "N/A")
