"""Logs of a training run: results.csv, curves, the report of its best epoch, and its loggers."""

import csv
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from torch_utils.runs.loggers import MetricsLogger
from utils.files import write_text
from utils.visualize.plots import plot_training

log = logging.getLogger(__name__)

RESULTS, OPTIONS = "results.csv", "opt.yaml"
COLUMNS = {  # of results.csv, as the predecessor named them -> history key
    "map": "map",
    "map_05": "map_05",
    "train loss": "train_loss",
    "train cls loss": "loss_classifier",
    "train box reg loss": "loss_box_reg",
    "train obj loss": "loss_objectness",
    "train rpn loss": "loss_rpn_box_reg",
    "val loss": "val_loss",
    "val cls loss": "val_loss_classifier",
    "val box reg loss": "val_loss_box_reg",
    "val obj loss": "val_loss_objectness",
    "val rpn loss": "val_loss_rpn_box_reg",
    "train map": "train_map",
    "train map_05": "train_map_05",
}
_REPORTS_SHARE = 0.05  # of a run's time, at most, that its thread spends on reports before the end


@dataclass(frozen=True)
class WrittenReport:
    """Numbers and pictures of a report, for the loggers."""

    numbers: Mapping[str, float]
    pictures: Mapping[str, bytes]  # name -> PNG or JPEG


class TrainingLog:
    """Writes after every epoch; pictures are drawn by a thread, for which training never waits.

    An epoch that ends while it is still busy is left out; close() draws what the last one and the best one lack.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], loggers: Sequence[MetricsLogger]) -> None:
        self.folder = folder
        self.loggers = loggers
        write_text(folder / OPTIONS, yaml.safe_dump(dict(options), sort_keys=False))
        self._artist = ThreadPoolExecutor(1, thread_name_prefix="plots")
        self._drawing: list[Future[None]] = []
        self._curves: Callable[[], None] | None = None  # still to be drawn
        self._report: Callable[[], None] | None = None
        self._started = time.monotonic()
        self._reporting = 0.0  # seconds so far

    def write_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the run so far; its last row is the newest epoch."""
        write_text(self.folder / RESULTS, _csv(history))
        for logger in self.loggers:
            logger.scalars(history[-1], len(history))

    def keep_report(self, epoch: int, write: Callable[[], WrittenReport]) -> None:
        """Have the report of this epoch, the best so far, written when drawing starts; if that takes long, by close."""
        self._report = partial(self._write_report, epoch, write)

    def start_drawing(
        self, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray, draw_more: Callable[[], None]
    ) -> None:
        """Draw the curves; `draw_more` follows them in the thread."""
        self._curves = partial(self._draw, history, iteration_losses, draw_more)
        self._go_on()

    def close(self) -> None:
        """Draw what was left out, and wait for it."""
        self._finish_drawing()
        self._go_on(hurry=False)
        self._finish_drawing()
        self._artist.shutdown()
        for logger in self.loggers:
            logger.close()

    def _go_on(self, *, hurry: bool = True) -> None:
        """Give the thread what is still to be drawn, if it has nothing to do."""
        if not all(drawing.done() for drawing in self._drawing):
            return
        self._finish_drawing()
        if self._curves is not None:
            self._drawing.append(self._artist.submit(self._curves))
            self._curves = None
        affordable = self._reporting <= _REPORTS_SHARE * (time.monotonic() - self._started)
        if self._report is not None and (affordable or not hurry):
            self._drawing.append(self._artist.submit(self._report))
            self._report = None

    def _draw(
        self, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray, draw_more: Callable[[], None]
    ) -> None:
        plot_training(self.folder, history, iteration_losses)
        draw_more()

    def _write_report(self, epoch: int, write: Callable[[], WrittenReport]) -> None:
        started = time.monotonic()
        written = write()
        for logger in self.loggers:
            logger.scalars(written.numbers, epoch)
            logger.pictures(written.pictures, epoch)
        self._reporting += time.monotonic() - started

    def _finish_drawing(self) -> None:
        for error in filter(None, [drawing.exception() for drawing in self._drawing]):  # no picture is worth a run
            log.warning("the pictures of an epoch could not be drawn: %s", error, exc_info=error)
        self._drawing = []


def _csv(history: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["epoch", *COLUMNS])
    for epoch, row in enumerate(history, 1):
        rows.writerow([epoch, *(row.get(key, "") for key in COLUMNS.values())])
    return text.getvalue()
