"""Requests to save or stop a run: by signals, and by a timer. The training loop polls them between updates."""

import enum
import time

from torch_utils.distributed import Processes, highest
from utils.cli.script import Interrupted
from utils.cli.stop_signal import StopSignal


class Request(enum.IntEnum):
    """Request to the training loop; of several processes' requests the highest holds in all."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class SaveOrStop(StopSignal):
    """Records signals inside `with`, see StopSignal, and the time since the run was last saved.

    Args:
        save_minutes: interval between saves; None for never.
    """

    def __init__(self, processes: Processes, save_minutes: float | None) -> None:
        super().__init__("the run saves itself and ends" if processes.is_main else None)
        self.processes = processes
        self._interval = None if save_minutes is None else 60 * save_minutes
        self.saved()

    def saved(self) -> None:
        """Restart the timer."""
        self._saved_at = time.monotonic()

    def poll(self) -> Request:
        """The current request, the same in all processes; every process calls this at the same step."""
        request = Request.NOTHING
        if self.signal is not None:
            request = Request.STOP
        elif self._interval is not None and self.processes.is_main:
            request = Request.SAVE if time.monotonic() - self._saved_at >= self._interval else request
        return Request(highest(self.processes, request))

    def stop(self, message: str) -> Interrupted:
        """The exception to raise on Request.STOP; the main process prints `message`, which says what is saved."""
        return self.interrupted(message)
