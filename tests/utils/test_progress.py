import io
import logging
import re
import sys

import pytest

from utils import progress
from utils.progress import StepMeter, bar


def run(steps: int, header: str = "Epoch: [0]") -> StepMeter:
    meter = StepMeter(header, list(range(steps)))
    for _ in meter:
        if meter.due():
            meter.show({"lr": "0.001000", "loss": "1.5000 (1.6000)"})
    return meter


def test_lines_are_those_users_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(84)
    first, last, total = (record.getMessage() for record in caplog.records)
    line = r"  eta: 0:00:\d\d  lr: 0\.001000  loss: 1\.5000 \(1\.6000\)  time: \d\.\d{4}  data: \d\.\d{4}"
    assert re.fullmatch(r"Epoch: \[0\]  \[ 0/84\]" + line, first)
    assert re.fullmatch(r"Epoch: \[0\]  \[83/84\]" + line, last)
    assert re.fullmatch(r"Epoch: \[0\] Total time: 0:00:00 \(0\.\d{4} s / it\)", total)


def test_a_line_every_hundred_steps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(250)
    steps = [m[1] for r in caplog.records if (m := re.search(r"\[ *(\d+)/250\]", r.getMessage()))]
    assert steps == ["0", "100", "200", "249"]


def test_memory_comes_after_the_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    meter = StepMeter("Epoch: [0]", [0])
    for _ in meter:
        meter.show({"lr": "0.1"}, {"max mem": "1525"})
    assert re.search(r"lr: 0\.1  time: \S+  data: \S+  max mem: 1525$", caplog.records[0].getMessage())


def test_one_step_and_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(1)
    run(0)
    assert sum("[0/1]" in r.getMessage() for r in caplog.records) == 1


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(progress, "_BAR_INTERVAL", 0)
    run(5)
    assert "loss: 1.5000" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_the_last_values_of_a_bar_stay_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(5)
    hidden = [getattr(record, progress.PROGRESS, False) for record in caplog.records]
    assert hidden == [True, False, False]  # first step, last step, total time


def test_bar_passes_items_through() -> None:
    assert list(bar([1, 2, 3], "reading")) == [1, 2, 3]
