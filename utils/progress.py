"""What one sees while a loop runs: a bar on a terminal, plain lines in a file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import timedelta
from typing import Protocol, TypeVar

from tqdm import tqdm

from utils.logs import PROGRESS

Item = TypeVar("Item", covariant=True)
log = logging.getLogger(__name__)

_LINE_INTERVAL = 100  # steps between two plain lines
_BAR_INTERVAL = 0.3  # s between two looks at the values of a bar: reading one waits for the GPU


class SizedIterable(Sized, Iterable[Item], Protocol[Item]):
    """What has a length and can be iterated: a list, a data loader."""


def bar(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Iterate with a bar on a terminal, if it takes more than a second."""
    return iter(tqdm(items, desc=description, delay=1, leave=False, disable=None))


class StepMeter:
    """Iterates over a loader, times it, and shows chosen values beside the progress.

        meter = StepMeter("Epoch: [0]", loader)
        for batch in meter:
            ...
            if meter.due():
                meter.show({"loss": f"{loss.item():.4f}"})

    A line reads `Epoch: [0]  [ 0/84]  eta: 0:02:17  loss: 1.6518  time: 1.6422  data: 0.2176`; time and data are
    seconds per step, of the whole step and of waiting for the loader, over the steps since the last line.
    """

    def __init__(self, header: str, loader: SizedIterable[Item], *, start: int = 0) -> None:
        self.header = header
        self.loader = loader
        self.total = len(loader)
        self.start = self.step = start  # the loader gives what comes from there on
        description, quiet = header.rstrip(":"), not sys.stdout.isatty()
        self._bar = tqdm(initial=start, total=self.total, desc=description, disable=quiet, file=sys.stdout, leave=False)

    def __iter__(self) -> Iterator[Item]:
        self._started = self._shown_at = time.perf_counter()
        self._shown_step, self._waited = self.start - 1, 0.0
        waiting_since = self._started
        for step, item in enumerate(self.loader, self.start):
            self.step = step
            self._waited += time.perf_counter() - waiting_since
            yield item
            self._bar.update()
            waiting_since = time.perf_counter()
        self._bar.close()
        seconds = time.perf_counter() - self._started
        clock = timedelta(seconds=int(seconds))
        log.info("%s Total time: %s (%.4f s / it)", self.header, clock, seconds / max(1, self.total - self.start))

    def due(self) -> bool:
        """Whether this step is to be shown: ask at its end, and only then read values from the device."""
        if self._is_line():
            return True
        return not self._bar.disable and time.perf_counter() - self._shown_at > _BAR_INTERVAL

    def show(self, values: Mapping[str, str], last: Mapping[str, str] | None = None) -> None:
        """Show `values` beside the progress, then the times, then `last`."""
        now = time.perf_counter()
        steps = self.step - self._shown_step
        times = {"time": f"{(now - self._shown_at) / steps:.4f}", "data": f"{self._waited / steps:.4f}"}
        self._shown_at, self._shown_step, self._waited = now, self.step, 0.0
        text = "  ".join(f"{name}: {value}" for name, value in {**values, **times, **(last or {})}.items())
        self._bar.set_postfix_str(text)
        if self._is_line():
            eta = timedelta(
                seconds=int((now - self._started) / (self.step + 1 - self.start) * (self.total - self.step - 1))
            )
            place = f"[{self.step:{len(str(self.total))}d}/{self.total}]"
            is_last = self.step == self.total - 1
            if is_last:
                self._bar.close()  # its last values stay, as a line
            log.info("%s  %s  eta: %s  %s", self.header, place, eta, text, extra={PROGRESS: not is_last})

    def _is_line(self) -> bool:
        return self.step in (self.start, self.total - 1) or self.step % _LINE_INTERVAL == 0
