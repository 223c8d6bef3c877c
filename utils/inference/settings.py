"""Resolution of inference options against a detector: class names, classes, thresholds, output folder."""

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


def resolve_class_names(info: DetectorInfo, config: DataConfig | None) -> Sequence[str]:
    """Return the class names of --data if given, otherwise those of the detector.

    Raises:
        UserError: the numbers of classes differ.
    """
    if config is None:
        return info.class_names
    if len(config.classes) != len(info.class_names):
        raise UserError(
            f"{config.path}: CLASSES has {len(config.classes)} entries, the model {len(info.class_names)}: "
            "drop --data to use the names stored with the model"
        )
    return config.classes


def check_classes(requested: Sequence[int] | None, class_names: Sequence[str]) -> None:
    """Raise a UserError for a label of --classes that does not exist."""
    unknown = [k for k in requested or () if not 0 < k < len(class_names)]
    if unknown:
        raise UserError(f"--classes {unknown[0]}: no such class; the classes are {_listed(class_names)}")


def resolve_threshold(
    requested: float | str,
    class_thresholds: Mapping[str, float],
    info: DetectorInfo,
    class_names: Sequence[str],
    *,
    typed: bool,
) -> float | np.ndarray:
    """Return the score threshold, or (K,) float64 thresholds by label; log the best threshold of the checkpoint.

    Args:
        requested: --threshold: a score, BEST or BEST_PER_CLASS.
        class_thresholds: --class-thresholds: scores by class name or label.
        typed: True if `requested` was typed, False for the default.

    Raises:
        UserError: the checkpoint stores no best threshold, or a class does not exist.
    """
    common = _common_threshold(requested, info, typed=typed)
    if not class_thresholds and requested != BEST_PER_CLASS:
        return common
    thresholds = np.full(len(class_names), common)
    if requested == BEST_PER_CLASS:
        best = info.class_thresholds or {}
        thresholds = np.array([common if best.get(name) is None else best[name] for name in info.class_names])
    for name, score in class_thresholds.items():
        thresholds[_label(name, class_names)] = score
    pairs = zip(class_names[1:], thresholds[1:], strict=True)
    log.info("Score thresholds: %s", ", ".join(f"{name} {score:.3f}" for name, score in pairs if name != "N/A"))
    return thresholds


def output_folder(requested: str | None, inputs: Collection[Path] = (), names: Collection[str] = ()) -> Path:
    """Create and return --output, or a new numbered folder.

    Args:
        inputs: files that are read.
        names: names of the files that will be written, relative to the folder.

    Raises:
        UserError: a result would overwrite an input.
    """
    if requested is None:
        return numbered_folder(INFERENCE)
    folder = Path(requested)
    protected = {path.resolve() for path in inputs}
    if any((folder / name).resolve() in protected for name in names):
        raise UserError(
            f"--output {requested} holds the input images, which the results would overwrite: choose another"
        )
    return given_folder(folder)


def _common_threshold(requested: float | str, info: DetectorInfo, *, typed: bool) -> float:
    best = info.best_threshold
    if requested in (BEST, BEST_PER_CLASS):
        if best is None or (requested == BEST_PER_CLASS and info.class_thresholds is None):
            raise UserError(
                f"--threshold {requested}: {info.source} stores no best threshold (best_model.pth of a training does): "
                "give a number, such as the one that eval.py prints"
            )
        log.info("Score threshold, best mean F1 of validation: %.3f", best)
        return best
    if best is not None and not typed:
        log.info("Score threshold: %g; validation's best mean F1 is at %.3f: --threshold %s", requested, best, BEST)
    return float(requested)


def _label(name: str, class_names: Sequence[str]) -> int:
    if name in class_names[1:]:
        return list(class_names).index(name, 1)
    if name.isdecimal() and 0 < int(name) < len(class_names):
        return int(name)
    raise UserError(f"--class-thresholds {name}: no such class; the classes are {_listed(class_names)}")


def _listed(class_names: Sequence[str]) -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(class_names) if i > 0 and name != "N/A")
