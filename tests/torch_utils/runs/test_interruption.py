"""Signals and minutes that ask a run to save itself."""

import os
import signal

import pytest
import torch

from torch_utils.distributed import Processes
from torch_utils.runs import interruption
from torch_utils.runs.interruption import Request, SaveOrStop

ALONE = Processes(torch.device("cpu"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_is_a_wish_to_stop(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with SaveOrStop(ALONE, None) as asked:
        assert asked.poll() is Request.NOTHING
        os.kill(os.getpid(), number)
        assert asked.poll() is Request.STOP
        assert asked.poll() is Request.STOP
        stopped = asked.stop("All is in x.")
    assert str(stopped) == f"stopped by {name}. All is in x."
    assert stopped.exit_code == 128 + number
    assert signal.getsignal(number) == before
    assert f"{name}: the run saves itself and ends" in capfd.readouterr().err


def test_one_ctrl_c_that_comes_twice_is_one_and_a_later_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun hands on the terminal's Ctrl-C, which its processes had already."""
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    with SaveOrStop(ALONE, None) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.poll() is Request.STOP
        now[0] += 4
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_minutes_count_from_the_last_time_it_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    asked = SaveOrStop(ALONE, 2)
    now[0] = 119
    assert asked.poll() is Request.NOTHING
    now[0] = 121
    assert asked.poll() is Request.SAVE
    asked.saved()
    assert asked.poll() is Request.NOTHING
    now[0] = 242
    assert asked.poll() is Request.SAVE
    assert SaveOrStop(ALONE, None).poll() is Request.NOTHING


def test_the_highest_wish_of_all_processes_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(interruption, "highest", lambda processes, own: asked.append(own) or int(Request.STOP))
    several = SaveOrStop(Processes(torch.device("cpu"), rank=1, world_size=2), 0)
    assert several.poll() is Request.STOP
    assert asked == [Request.NOTHING], "the clocks of other processes than the main one do not count"
    assert several.stop("").exit_code == 128 + signal.SIGTERM


def test_a_terminal_that_was_closed_may_be_ignored() -> None:
    """nohup says so; else the run saves itself."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SaveOrStop(ALONE, None) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.poll() is Request.NOTHING
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with SaveOrStop(ALONE, None) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.poll() is Request.STOP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nobody_reading_any_more_is_no_reason_to_lose_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: Ctrl-C ends `| tee log` too, and telling of the signal failed in the middle of a step."""

    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("os.write", fail)
    with SaveOrStop(ALONE, None) as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.poll() is Request.STOP
