"""Checks of flags that name files, cheap enough to come before the heavy imports."""

import glob
from pathlib import Path

from utils.errors import DataError, UserError
from utils.text import did_you_mean_file


def check_data_yaml(text: str | None) -> None:
    """DataError if --data names no file."""
    if text is not None and not Path(text).is_file():
        raise DataError(f"{text}: no such file{did_you_mean_file(Path(text), '*.yaml')}")


def check_weights(text: str | None) -> None:
    """UserError if --weights names no file."""
    if text is None or Path(text).is_file():
        return
    if Path(text).suffix.lower() == ".onnx":
        raise UserError(f"{text}: no such ONNX file")
    raise UserError(f"{text}: no such checkpoint{checkpoints_beside(Path(text))}")


def check_input(text: str | None) -> None:
    """UserError if --input can be neither a file, folder or pattern, nor a camera, stream or standard input."""
    if text is None or Path(text).exists() or glob.has_magic(text) or "://" in text or text == "-" or text.isdecimal():
        return
    raise UserError(f"--input {text}: no such file or folder{did_you_mean_file(Path(text))}")


def checkpoints_beside(path: Path) -> str:
    """The end of a message about a checkpoint that does not exist: the ones that do."""
    if path.name.isdecimal():
        return ": -w is short for --weights; the number of workers is -j"
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    if names := sorted(p.name for p in path.parent.glob("*.pth")):
        return f"; {path.parent} has {', '.join(names)}"
    return f"; there is none in {path.parent.absolute()}; a training leaves best_model.pth in outputs/training/NAME"
