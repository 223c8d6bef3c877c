"""When the pictures and reports of a run are drawn."""

import threading
from pathlib import Path

import numpy as np
import pytest

from utils import training_log
from utils.training_log import TrainingLog, WrittenReport


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
    sink = Recorder()
    return TrainingLog(folder, {}, [sink]), sink


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
    log, sink = make_log(tmp_path)
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
    assert sink.got == [
        (1, {"f1": 0.1}), (1, {"f1_curve": b"png"}), (3, {"f1": 0.3}), (3, {"f1_curve": b"png"}), "closed",
    ]  # fmt: skip


def test_a_report_that_fails_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, sink = make_log(tmp_path)

    def write() -> WrittenReport:
        raise OSError("disk full")

    log.keep_report(1, write)
    log.close()
    assert "could not be drawn: disk full" in caplog.text
    assert sink.got == ["closed"]


def test_epochs_go_to_the_file_and_the_sinks(tmp_path: Path) -> None:
    log, sink = make_log(tmp_path)
    log.write_epoch([{"map": 0.1, "train_loss": 2.0}])
    log.write_epoch([{"map": 0.1, "train_loss": 2.0}, {"map": 0.2, "train_loss": 1.0}])
    log.close()
    assert sink.got == [(1, {"map": 0.1, "train_loss": 2.0}), (2, {"map": 0.2, "train_loss": 1.0}), "closed"]
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == ("epoch,map,map_05,train loss,train cls loss,train box reg loss,train obj loss,train rpn loss")
    assert lines[2] == "2,0.2,,1.0,,,,"
