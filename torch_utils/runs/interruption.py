"""Signals that ask a run to end, and the time that asks it to save itself: wishes that a loop grants when it can."""

import enum
import time

from torch_utils.distributed import Processes, highest
from utils.cli.script import Interrupted
from utils.cli.stop_signal import StopSignal


class Request(enum.IntEnum):
    """What a loop is asked for between two updates; of several processes' wishes the highest holds in all."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class SaveOrStop(StopSignal):
    """Notes signals from `with` to its end, see StopSignal, and when the run was last saved.

    Args:
        save_minutes: the run wishes to be saved when so much time has gone by since `saved` was called; None for never.
    """

    def __init__(self, processes: Processes, save_minutes: float | None) -> None:
        super().__init__("the run saves itself and ends" if processes.is_main else None)
        self.processes = processes
        self._interval = None if save_minutes is None else 60 * save_minutes
        self.saved()

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self._saved_at = time.monotonic()

    def wish(self) -> Request:
        """What is wished now, the same in all processes: each has to ask at the same moments of the run."""
        own = Request.NOTHING
        if self.signal is not None:
            own = Request.STOP
        elif self._interval is not None and self.processes.is_main:
            own = Request.SAVE if time.monotonic() - self._saved_at >= self._interval else own
        return Request(highest(self.processes, own))

    def stop(self, words: str) -> Interrupted:
        """What to raise when the wish to stop is granted; `words`, which the main process tells, say what is saved."""
        return self.interrupted(words)
