"""Signals that request the end of a process, recorded until its work is saved."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, TypeVar

from utils.cli.script import Interrupted

Self = TypeVar("Self", bound="StopSignal")

# kill and schedulers; Ctrl-C; sbatch --signal=USR1@60; a terminal that is closed
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
_SAME_REQUEST = 3.0  # s in which a signal that comes again means the same: torchrun hands on the terminal's Ctrl-C


class StopSignal:
    """Records signals inside `with`.

    The first signal is a request. A second one, more than 3 s later, ends the process at once.

    Args:
        message: printed at the first signal, after its name; None for nothing.
    """

    def __init__(self, message: str | None) -> None:
        self.signal: signal.Signals | None = None
        self._message = message
        self._noted_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self: Self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python has it so
            for name in _NAMES:
                number = getattr(signal, name, None)  # Windows has not all of them
                if number is not None and signal.getsignal(number) not in (None, signal.SIG_IGN):  # as nohup has it
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def interrupted(self, message: str) -> Interrupted:
        """The exception to raise after the work is saved; `message` says what is saved."""
        number = self.signal or signal.SIGTERM  # another process has it
        return Interrupted(f"stopped by {number.name}. {message}" if self._message is not None else "", number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._noted_at = signal.Signals(number), now
            if self._message is not None:  # print() and logging may be in the middle of a line
                with contextlib.suppress(OSError):  # whoever reads it may have ended by the same Ctrl-C
                    os.write(2, f"\n{self.signal.name}: {self._message}; once more: at once\n".encode())
        elif now - self._noted_at > _SAME_REQUEST:
            raise KeyboardInterrupt
