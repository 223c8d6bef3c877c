"""train.py --slice-train as users run it."""

from pathlib import Path

import pytest

import train
from tests.test_train import FAST, assert_same_run, run_folder
from utils.flags import parse_options
from utils.train_options import TrainOptions

SLICES = ("--slice-train", "--slice-height", 60, "--slice-width", 70)


def test_a_run_on_slices_resumes_bit_equal(make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> None:
        train.main(parse_options(TrainOptions, "", list(map(str, words))))

    command = ("--data", make_data(images=3, size=(96, 128)).yaml, *FAST, *SLICES, "--aug", "strong")
    run(*command, "--name", "whole", "--epochs", 2)
    said = "  Slices of 70 x 60 px, overlapping by 0.2 of the height and 0.2 of the width: 3 whole images, "
    log = (run_folder(tmp_path, "whole") / "train.log").read_text()
    assert said in log
    assert "Number of validation samples: 3\n" in log
    run(*command, "--name", "parts", "--epochs", 1)
    run("-r", "-w", run_folder(tmp_path, "parts") / "last_model.pth", "--epochs", 2)
    assert (run_folder(tmp_path, "parts") / "train.log").read_text().count(said) == 2
    assert_same_run(run_folder(tmp_path, "whole"), run_folder(tmp_path, "parts"))
