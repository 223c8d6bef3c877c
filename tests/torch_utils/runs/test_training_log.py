"""When the pictures and reports of a run are drawn."""

import csv
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.support.run_folders import ROW
from torch_utils.runs import training_log
from torch_utils.runs.training_log import TrainingLog, WrittenReport

VALIDATION = {
    "val_loss": 2.5, "val_loss_classifier": 1.0, "val_loss_box_reg": 0.75, "val_loss_objectness": 0.5,
    "val_loss_rpn_box_reg": 0.25,
}  # fmt: skip


class Recorder:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.got = []

    def scalars(self, row, epoch) -> None:
        self.got.append((epoch, dict(row)))

    def pictures(self, pictures, epoch) -> None:
        self.got.append((epoch, dict(pictures)))

    def close(self) -> None:
        self.got.append("closed")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "plot_training", lambda *_: None)


def make_log(folder: Path) -> tuple[TrainingLog, Recorder]:
    logger = Recorder()
    return TrainingLog(folder, {}, [logger]), logger


def draw(log: TrainingLog, drawn: list, what: object, wait: threading.Event | None = None) -> None:
    def draw_more() -> None:
        if wait is not None:
            assert wait.wait(10)
        drawn.append(what)

    log.start_drawing([{"map": 0.1}], np.empty(0), draw_more)


def test_training_never_waits_and_the_last_epoch_is_drawn(tmp_path: Path) -> None:
    """An epoch that was shorter than the pictures of the one before waited for them."""
    log, _ = make_log(tmp_path)
    drawn, go_on = [], threading.Event()
    draw(log, drawn, 1, go_on)
    for epoch in (2, 3, 4):
        draw(log, drawn, epoch)
    assert drawn == []
    go_on.set()
    log.close()
    assert drawn == [1, 4]


def test_the_report_at_the_end_is_of_the_best_epoch(tmp_path: Path) -> None:
    """The first is written at once; of those that come while reports have had their share of the time, the last one."""
    log, logger = make_log(tmp_path)
    written = []

    def report(epoch: int) -> None:
        def write() -> WrittenReport:
            written.append(epoch)
            return WrittenReport({"f1": epoch / 10}, {"f1_curve": b"png"})

        log.keep_report(epoch, write)
        draw(log, [], epoch)

    report(1)
    log._finish_drawing()
    assert written == [1]
    log._reporting = 1e6
    for epoch in (2, 3):
        report(epoch)
        log._finish_drawing()
    draw(log, [], 4)
    assert written == [1]
    log.close()
    assert written == [1, 3]
    assert logger.got == [
        (1, {"f1": 0.1}), (1, {"f1_curve": b"png"}), (3, {"f1": 0.3}), (3, {"f1_curve": b"png"}), "closed",
    ]  # fmt: skip


def test_a_report_that_fails_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, logger = make_log(tmp_path)

    def write() -> WrittenReport:
        raise OSError("disk full")

    log.keep_report(1, write)
    log.close()
    assert "could not be drawn: disk full" in caplog.text
    assert logger.got == ["closed"]


def test_epochs_go_to_the_file_and_the_sinks(tmp_path: Path) -> None:
    log, logger = make_log(tmp_path)
    log.write_epoch([{"map": 0.1, "train_loss": 2.0}])
    log.write_epoch([{"map": 0.1, "train_loss": 2.0}, {"map": 0.2, "train_loss": 1.0}])
    log.close()
    assert logger.got == [(1, {"map": 0.1, "train_loss": 2.0}), (2, {"map": 0.2, "train_loss": 1.0}), "closed"]


def test_results_have_their_columns_and_gaps_where_a_row_is_of_an_older_version(tmp_path: Path) -> None:
    log, _ = make_log(tmp_path)
    log.write_epoch([ROW, {**ROW, **VALIDATION}, {**ROW, **VALIDATION, "train_map": 0.2, "train_map_05": 0.4}])
    log.close()
    head, *rows = csv.reader((tmp_path / "results.csv").open())
    assert head == [
        "epoch", "map", "map_05", "train loss", "train cls loss", "train box reg loss", "train obj loss",
        "train rpn loss", "val loss", "val cls loss", "val box reg loss", "val obj loss", "val rpn loss", "train map",
        "train map_05",
    ]  # fmt: skip
    old = ["0.1", "0.3", "2.0", "0.5", "0.5", "0.5", "0.5"]
    new = ["2.5", "1.0", "0.75", "0.5", "0.25"]
    assert rows == [["1", *old, *[""] * 7], ["2", *old, *new, "", ""], ["3", *old, *new, "0.2", "0.4"]]
