"""Folders of runs, read: ours, the predecessor's, and damaged ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.run_folders import HEAD, write_run
from torch_utils.runs.run_history import read_run
from utils.errors import DataError


def test_a_run_with_everything(tmp_path: Path) -> None:
    log = "Epoch: [0] Total time: 0:00:15 (0.1081 s / it)\nTest: Total time: 0:01:00\n"
    log += "Epoch: [1] Total time: 1 day, 1:00:17 (0.1 s / it)\nEpoch: [2] Total time: 0:00:17 (0.1 s / it)\n"
    run = read_run(
        write_run(tmp_path / "a", opt_yaml="lr: 0.1\nmodel: x\n", metrics_json='{"best_threshold": 0.6}', train_log=log)
    )
    assert (run.name, run.epochs.tolist(), run.best) == ("a", [1, 2], 1)
    assert run.columns["map"].tolist() == [0.1, 0.3]
    assert run.columns["loss_rpn_box_reg"].tolist() == [0.2, 0.1]
    assert (run.options, run.metrics, run.epoch_seconds) == ({"lr": 0.1, "model": "x"}, {"best_threshold": 0.6}, 17)


def test_results_alone_will_do(tmp_path: Path) -> None:
    """A run of the predecessor's that was resumed has gaps, and a run may have no number at all."""
    run = read_run(write_run(tmp_path / "a", "1,0.1,0.2,2,,,,\n2,nan,,inf,,,,\n"))
    assert np.isnan(run.columns["loss_classifier"]).all()
    assert np.isnan(run.columns["train_loss"][1])
    assert (run.best, run.options, run.metrics, run.epoch_seconds) == (0, {}, {}, None)
    assert read_run(write_run(tmp_path / "b", "1,nan,nan,nan,,,,\n")).best is None


def test_columns_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("\ufeffmap_05, map ,extra,epoch,train loss\n0.2,0.1,7,3,1\n\n")
    run = read_run(tmp_path)
    assert (run.epochs.tolist(), run.columns["map"].tolist(), run.columns["map_05"].tolist()) == ([3], [0.1], [0.2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column epoch, map, map_05, train loss"),
        (b"a,b\n1,2\n", "has no column epoch"),
        (HEAD.encode(), "has 0 epochs, expected 1 to 100,000"),
        (HEAD.encode() + b"1,x,0,0,0,0,0,0\n", "results.csv:2: map is 'x', expected a number"),
        (HEAD.encode() + b"1,0.5\n", "results.csv:2: has 2 values, expected 8"),
        (HEAD.encode() + b"nan,0,0,0,0,0,0,0\n", "the number of an epoch is missing"),
        (HEAD.encode() + b"1," + b"9" * 200_000 + b",0,0,0,0,0,0\n", "results.csv:2: not CSV (field larger"),
        (HEAD.encode() + b"1,0,0,0,0,0,0,0\n" * 100_001, "has 100,001 epochs"),
        (b"\xff\xfe\x00", "not UTF-8 text (byte 0)"),
        (b"0" * ((1 << 24) + 1), "16,777,217 bytes is too large"),
    ],
    ids=str,
)
def test_a_damaged_results_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_run(tmp_path)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"metrics_json": "[" * 100_000}, "not JSON"),
        ({"metrics_json": "[1]"}, "expected the metrics of an evaluation"),
        ({"opt_yaml": "- 1"}, "expected the options of a run"),
        ({"opt_yaml": "a: !!python/object/apply:os.system [echo]"}, "not valid YAML"),
    ],
    ids=str,
)
def test_other_damaged_files(tmp_path: Path, files: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_run(write_run(tmp_path, **files))


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no results\.csv: expected the folder of a run"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_run(tmp_path / "none")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.csv")
    with pytest.raises(DataError, match=r"has no results\.csv"):
        read_run(tmp_path)
