import io
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from utils import progress
from utils.progress import StepMeter, progress_bar


class Clock:
    """Replacement of time.perf_counter that a test moves forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)

    def loader(self, batches: int, images: int, seconds: float) -> "SlowLoader":
        return SlowLoader(self, batches, images, seconds)


@dataclass
class SlowLoader:
    """Loader whose time is waiting for data, except when it waits for a GPU."""

    clock: Clock
    batches: int
    images: int
    seconds: float
    behind: float = 0.0
    data_wait_seconds: float = 7.0  # in epochs before

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[range]:
        for _ in range(self.batches):
            self.clock.now += self.seconds + self.behind
            self.data_wait_seconds += self.seconds
            yield range(self.images)


class Instant(list):
    """Batches that need no waiting."""

    data_wait_seconds = 0.0


def run(steps: int, header: str = "Epoch: [0]") -> StepMeter:
    meter = StepMeter(header, Instant([range(2)] * steps))
    for _ in meter:
        if meter.due():
            meter.show({"lr": "0.001000", "loss": "1.5000 (1.6000)"})
    return meter


def test_lines_are_those_users_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(84)
    first, last, total = (record.getMessage() for record in caplog.records)
    line = (
        r"  eta: 0:00:\d\d  lr: 0\.001000  loss: 1\.5000 \(1\.6000\)  time: \d\.\d{4}"
        r"  data: \d\.\d{4} \(\d+ %\)  images/s: \d+\.\d"
    )
    assert re.fullmatch(r"Epoch: \[0\]  \[ 0/84\]" + line, first)
    assert re.fullmatch(r"Epoch: \[0\]  \[83/84\]" + line, last)
    assert re.fullmatch(
        r"Epoch: \[0\] Total time: 0:00:00 \(0\.\d{4} s / it\), \d+\.\d images/s, \d+ % of it waiting for data", total
    )


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each of two processes takes 1 s for a step of 4 images, 0.2 s of it waiting for data."""
    caplog.set_level(logging.INFO)
    clock = Clock(monkeypatch)
    meter = StepMeter("Epoch: [0]", clock.loader(151, 4, 0.2), processes=2)
    for _ in meter:
        clock.now += 0.8 if meter.step <= 100 else 1.8
        if meter.due():
            meter.show({})
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "Epoch: [0]  [  0/151]  eta: 0:02:30  time: 1.0000  data: 0.2000 (20 %)  images/s: 8.0",
        "Epoch: [0]  [100/151]  eta: 0:00:50  time: 1.0000  data: 0.2000 (20 %)  images/s: 8.0",
        "Epoch: [0]  [150/151]  eta: 0:00:00  time: 2.0000  data: 0.2000 (10 %)  images/s: 4.0",
        "Epoch: [0] Total time: 0:03:21 (1.3311 s / it), 6.0 images/s, 15 % of it waiting for data",
    ]


def test_waiting_for_a_gpu_is_not_waiting_for_data(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fifth of the 0.5 s between two steps is waiting for data."""
    caplog.set_level(logging.INFO)
    clock = Clock(monkeypatch)
    for _ in StepMeter("Epoch: [0]", SlowLoader(clock, 10, 2, seconds=0.1, behind=0.4)):
        clock.now += 0.5
    assert caplog.records[-1].getMessage().endswith(" 2.0 images/s, 10 % of it waiting for data")


@pytest.mark.parametrize(("steps", "waits", "works", "told"), [(30, 0.4, 0.6, 1), (30, 0.2, 0.8, 0), (15, 0.9, 0.1, 0)])
def test_much_waiting_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, steps: int, waits: float, works: float, told: int
) -> None:
    progress._warn_once.cache_clear()
    clock = Clock(monkeypatch)
    for epoch in range(2):
        for _ in StepMeter(f"Epoch: [{epoch}]", clock.loader(steps, 2, waits), advice="more --workers"):
            clock.now += works
    for _ in StepMeter("Test:", clock.loader(steps, 2, waits)):
        clock.now += works
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == ["more --workers"] * told


def test_a_line_every_hundred_steps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(250)
    steps = [m[1] for r in caplog.records if (m := re.search(r"\[ *(\d+)/250\]", r.getMessage()))]
    assert steps == ["0", "100", "200", "249"]


def test_memory_comes_after_the_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    meter = StepMeter("Epoch: [0]", Instant([range(2)]))
    for _ in meter:
        meter.show({"lr": "0.1"}, {"max mem": "1525"})
    assert re.search(
        r"lr: 0\.1  time: \S+  data: \S+ \(\d+ %\)  images/s: \S+  max mem: 1525$", caplog.records[0].getMessage()
    )


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
    assert list(progress_bar([1, 2, 3], "reading")) == [1, 2, 3]
