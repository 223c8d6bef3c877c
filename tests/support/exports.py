"""ONNX files of a small detector."""

import shutil
from pathlib import Path

import export as script
from benchmarks.common.lively import lively
from tests.conftest import ROOT
from tests.support.checkpoints import write_checkpoint
from tests.support.shared import made_once
from utils.cli.flags import parse_options
from utils.cli.options import ExportOptions

PICTURE = ROOT / "example_test_data" / "image_1.jpg"


def lively_checkpoint(folder: Path, *, square: bool = False) -> Path:
    """Write model.pth: random weights that find many boxes, at 128 px."""
    return write_checkpoint(
        folder / "model.pth", lively("fasterrcnn_nano"), size=128, square=square, best_threshold=0.4
    )


def _export_with_check(folder: Path) -> None:
    export(folder, "--check", PICTURE)


def _export_square_with_check(folder: Path) -> None:
    export(folder, "--check", PICTURE, square=True)


def export(folder: Path, *more: object, square: bool = False) -> Path:
    """Write model.onnx by export.py, whose main is called in this process, and model.pth beside it.

    Without further options the two are copies of files that all workers share.
    """
    if not more:
        made = (
            made_once("export-square", _export_square_with_check) if square else made_once("export", _export_with_check)
        )
        for name in ("model.pth", "model.onnx"):
            shutil.copyfile(made / name, folder / name)
        return folder / "model.onnx"
    words = ("--weights", lively_checkpoint(folder, square=square), "--out", folder / "model.onnx", "-d", "cpu", *more)
    script.main(parse_options(ExportOptions, "", list(map(str, words))))
    return folder / "model.onnx"
