"""Signals that ask a run to end, and the time that asks it to save itself: wishes that a loop grants when it can."""

import contextlib
import enum
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from torch_utils.distributed import Processes, highest
from utils.script import Interrupted

# kill and schedulers; Ctrl-C; sbatch --signal=USR1@60; a terminal that is closed
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
_ONE_WISH = 3.0  # s in which a signal that comes again means the same: torchrun hands on the terminal's Ctrl-C


class Wish(enum.IntEnum):
    """What a loop is asked for between two updates; of several processes' wishes the highest holds in all."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Interruption:
    """Notes signals from `with` to its end, and when the run was last saved.

    The first signal is a wish. A second one, more than 3 s later, ends the process at once.

    Args:
        save_minutes: the run wishes to be saved when so much time has gone by since `saved` was called; None for never.
    """

    def __init__(self, processes: Processes, save_minutes: float | None) -> None:
        self.processes = processes
        self._interval = None if save_minutes is None else 60 * save_minutes
        self._signal: signal.Signals | None = None
        self._noted_at = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self.saved()

    def __enter__(self) -> "Interruption":
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

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self._saved_at = time.monotonic()

    def wish(self) -> Wish:
        """What is wished now, the same in all processes: each has to ask at the same moments of the run."""
        own = Wish.NOTHING
        if self._signal is not None:
            own = Wish.STOP
        elif self._interval is not None and self.processes.is_main:
            own = Wish.SAVE if time.monotonic() - self._saved_at >= self._interval else own
        return Wish(highest(self.processes, own))

    def stop(self, words: str) -> Interrupted:
        """What to raise when the wish to stop is granted; `words`, which the main process tells, say what is saved."""
        number = self._signal or signal.SIGTERM  # another process has it
        return Interrupted(f"stopped by {number.name}. {words}" if self.processes.is_main else "", number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._noted_at = signal.Signals(number), now
            if self.processes.is_main:  # print() and logging may be in the middle of a line
                with contextlib.suppress(OSError):  # whoever reads it may have ended by the same Ctrl-C
                    os.write(2, f"\n{self._signal.name}: the run saves itself and ends; once more: at once\n".encode())
        elif now - self._noted_at > _ONE_WISH:
            raise KeyboardInterrupt
