"""train.py --slice-train as users run it."""

from pathlib import Path

import pytest

import train
from tests.support.training_runs import FAST, assert_same_run, run_folder
from torch_utils.runs.run import Run
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions

SLICES = ("--slice-train", "--slice-height", 40, "--slice-width", 50)


@pytest.mark.full
def test_a_run_on_slices_resumes_bit_equal(make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> None:
        train.main(parse_options(TrainOptions, "", list(map(str, words))))

    def ended(*arguments: object) -> None:
        recorded(*arguments)
        raise KeyboardInterrupt

    command = ("--data", make_data(images=2, size=(64, 90)).yaml, *FAST, *SLICES, "--aug", "strong", "--epochs", 2)
    run(*command, "--name", "whole")
    said = "  Slices of 50 x 40 px, overlapping by 0.2 of the height and 0.2 of the width: 2 whole images, "
    log = (run_folder(tmp_path, "whole") / "train.log").read_text()
    assert said in log
    assert "Number of validation samples: 2\n" in log
    recorded = Run.record
    monkeypatch.setattr(Run, "record", ended)
    with pytest.raises(KeyboardInterrupt):
        run(*command, "--name", "parts")
    monkeypatch.setattr(Run, "record", recorded)
    run("-r", "-w", run_folder(tmp_path, "parts") / "last_model.pth")
    assert (run_folder(tmp_path, "parts") / "train.log").read_text().count(said) == 2
    assert_same_run(run_folder(tmp_path, "whole"), run_folder(tmp_path, "parts"))
