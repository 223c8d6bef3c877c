"""Show the progress of loops: a bar on a terminal, plain lines in a file."""

import functools
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from tqdm import tqdm

from utils.logs import PROGRESS

Item = TypeVar("Item", covariant=True)
Batch = TypeVar("Batch", bound=Sized, covariant=True)
log = logging.getLogger(__name__)

_LINE_INTERVAL = 100  # steps between two plain lines
_BAR_INTERVAL = 0.3  # s between two updates of the values beside a bar: reading one waits for the GPU
_MAX_WAITING = 0.3  # share of an epoch's time that may be spent waiting for data without advice
_MIN_EPOCH = 20.0  # s, epochs shorter than this get no advice


class TimedLoader(Sized, Iterable[Item], Protocol[Item]):
    """A loader that counts the seconds that it has waited for data."""

    data_wait_seconds: float


def progress_bar(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """Iterate with a bar on a terminal if it takes more than a second; `total` is needed for items without len()."""
    return iter(tqdm(items, desc=description, total=total, delay=1, leave=False, disable=None))


@dataclass(frozen=True)
class _Tally:
    """Time and work of a loop since its start, or since another tally."""

    seconds: float = 0.0
    data_wait_seconds: float = 0.0  # part of `seconds`
    steps: int = 0
    images: int = 0

    def since(self, before: "_Tally") -> "_Tally":
        return _Tally(
            self.seconds - before.seconds,
            self.data_wait_seconds - before.data_wait_seconds,
            self.steps - before.steps,
            self.images - before.images,
        )

    @property
    def step_seconds(self) -> float:
        return self.seconds / max(1, self.steps)

    @property
    def images_per_second(self) -> str:
        return f"{self.images / self.seconds:.1f}" if self.seconds else "0"

    @property
    def waiting(self) -> float:
        return self.data_wait_seconds / self.seconds if self.seconds else 0.0


class StepMeter:
    """Iterate over a loader, time it, and show values such as losses beside the progress.

        meter = StepMeter("Epoch: [0]", loader)
        for batch in meter:
            ...
            if meter.due():
                meter.show({"loss": f"{loss.item():.4f}"})

    A line reads `Epoch: [0]  [ 0/84]  eta: 0:02:17  loss: 1.6518  time: 1.6422  data: 0.2176 (13 %)  images/s: 9.7`.
    Time and data are seconds per step, for the whole step and for waiting for data, with the latter's share in percent;
    all three are means since the last line. Waiting of a loader for a GPU does not count as waiting for data.

    Args:
        loader: of batches; the length of one is its number of images.
        start: number of the loader's first step.
        processes: number of processes that iterate over such loaders at the same time; images/s is the sum of all.
        advice: logged once a run, after an epoch that spent much of its time waiting for data.
    """

    def __init__(
        self,
        header: str,
        loader: TimedLoader[Batch],
        *,
        start: int = 0,
        processes: int = 1,
        advice: str | None = None,
    ) -> None:
        self.header = header
        self.loader = loader
        self.processes = processes
        self.advice = advice
        self.total = len(loader)
        self.start = self.step = start
        self._images, self._waited, self._shown = 0, 0.0, _Tally()
        description, quiet = header.rstrip(":"), not sys.stdout.isatty()
        self._bar = tqdm(initial=start, total=self.total, desc=description, disable=quiet, file=sys.stdout, leave=False)

    def __iter__(self) -> Iterator[Batch]:
        self._started, before = time.perf_counter(), self.loader.data_wait_seconds
        for step, batch in enumerate(self.loader, self.start):
            self.step = step
            self._waited = self.loader.data_wait_seconds - before
            self._images += len(batch) * self.processes
            yield batch
            self._bar.update()
        self._bar.close()
        whole = self._tally(self.total)
        log.info(
            "%s Total time: %s (%.4f s / it), %s images/s, %.0f %% of it waiting for data",
            self.header, timedelta(seconds=int(whole.seconds)), whole.step_seconds, whole.images_per_second,
            100 * whole.waiting,
        )  # fmt: skip
        if self.advice is not None and whole.seconds >= _MIN_EPOCH and whole.waiting > _MAX_WAITING:
            _warn_once(self.advice)

    def due(self) -> bool:
        """Return True if this step is to be shown; call it at a step's end, before reading values from the device."""
        if self._is_line():
            return True
        return not self._bar.disable and self._tally(self.step).since(self._shown).seconds > _BAR_INTERVAL

    def show(self, values: Mapping[str, str], last: Mapping[str, str] | None = None) -> None:
        """Show `values`, then the times, then `last` beside the progress."""
        now = self._tally(self.step + 1)
        recent, self._shown = now.since(self._shown), now
        times = {
            "time": f"{recent.step_seconds:.4f}",
            "data": f"{recent.data_wait_seconds / recent.steps:.4f} ({100 * recent.waiting:.0f} %)",
            "images/s": recent.images_per_second,
        }
        text = "  ".join(f"{name}: {value}" for name, value in {**values, **times, **(last or {})}.items())
        self._bar.set_postfix_str(text)
        if self._is_line():
            eta = timedelta(seconds=int(now.step_seconds * (self.total - self.step - 1)))
            position = f"[{self.step:{len(str(self.total))}d}/{self.total}]"
            is_last = self.step == self.total - 1
            if is_last:
                self._bar.close()  # its last values stay visible
            log.info("%s  %s  eta: %s  %s", self.header, position, eta, text, extra={PROGRESS: not is_last})

    def _is_line(self) -> bool:
        return self.step in (self.start, self.total - 1) or self.step % _LINE_INTERVAL == 0

    def _tally(self, end: int) -> _Tally:
        """Tally of all steps before `end`."""
        return _Tally(time.perf_counter() - self._started, self._waited, end - self.start, self._images)


@functools.cache  # repeated calls do nothing
def _warn_once(text: str) -> None:
    log.warning(text)
