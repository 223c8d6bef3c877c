"""python -m torch_utils.compare."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.run_folders import write_run
from torch_utils.compare import main
from utils.cli.flags import parse_options
from utils.cli.options import CompareOptions
from utils.errors import DataError, UserError


def run_main(*words: object) -> None:
    main(parse_options(CompareOptions, "", [str(word) for word in words]))


def test_table_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    run_main(*runs, "--html", tmp_path / "c.html", "-o", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "mAP, IoU 0.50:0.95" in printed
    assert "one" in printed
    assert f"The page is {tmp_path / 'c.html'}" in printed
    assert "Comparison of 2 runs" in (tmp_path / "c.html").read_text()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"compare_{name}.png"
        for name in ("map", "map_05", "train_loss", "loss_cls", "loss_bbox_reg", "loss_obj", "loss_rpn_bbox")
    }
    assert {p.name for p in runs[0].iterdir()} == {"results.csv"}


def test_mistakes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    for path in (tmp_path, tmp_path / "none" / "c.html"):
        with pytest.raises(UserError, match="expected a file name in an existing folder"):
            run_main(run, "--html", path)
    with pytest.raises(DataError, match="no such folder"):
        run_main(run, tmp_path / "b")


def test_as_a_module_it_leaves_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch_utils.compare", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith(f"error: {tmp_path}: has no results.csv")
