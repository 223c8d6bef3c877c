"""What a training run leaves to read: results.csv, curves, TensorBoard, Weights & Biases."""

import csv
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from utils.errors import UserError
from utils.files import write_text
from utils.plots import plot_training

log = logging.getLogger(__name__)

RESULTS = "results.csv"
_COLUMNS = {  # of it, as the predecessor named them -> history key
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


class TrainingLog:
    """Writes after every epoch; pictures are drawn by a thread, so that training goes on meanwhile."""

    def __init__(self, folder: Path, options: Mapping[str, Any], *, first_epoch: int, wandb: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        write_text(folder / "opt.yaml", yaml.safe_dump(dict(options), sort_keys=False))
        # Events that a killed run wrote after its last checkpoint are hidden by those of the resumed one.
        self._tensorboard = SummaryWriter(str(folder), purge_step=first_epoch + 1)
        self._wandb = _start_wandb(folder, options) if wandb else None
        self._artist = ThreadPoolExecutor(1, thread_name_prefix="plots")
        self._drawing: Future[None] | None = None

    def write_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the run so far; its last row is the newest epoch."""
        write_text(self.folder / RESULTS, _csv(history))
        for key, value in history[-1].items():
            self._tensorboard.add_scalar(key, value, len(history))
        self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(dict(history[-1]), step=len(history))

    def start_drawing(
        self, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray, draw_more: Callable[[], None]
    ) -> None:
        """Draw the curves; `draw_more` follows them in the thread."""
        self._finish_drawing()
        self._drawing = self._artist.submit(self._draw, history, iteration_losses, draw_more)

    def close(self) -> None:
        """Wait for the last pictures."""
        self._finish_drawing()
        self._artist.shutdown()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _draw(
        self, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray, draw_more: Callable[[], None]
    ) -> None:
        plot_training(self.folder, history, iteration_losses)
        draw_more()

    def _finish_drawing(self) -> None:
        error = self._drawing.exception() if self._drawing is not None else None
        if error is not None:  # a picture is not worth a run
            log.warning("the pictures of an epoch could not be drawn: %s", error, exc_info=error)


def _csv(history: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["epoch", *_COLUMNS])
    for epoch, row in enumerate(history, 1):
        rows.writerow([epoch, *(row.get(key, "") for key in _COLUMNS.values())])
    return text.getvalue()


def check_wandb() -> None:
    """UserError if Weights & Biases is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb: Weights & Biases is not installed: pip install wandb, or drop --wandb")


def _start_wandb(folder: Path, options: Mapping[str, Any]) -> Any:
    import wandb

    try:
        return wandb.init(project="fasterrcnn", name=folder.name, dir=str(folder), config=dict(options))
    except (wandb.errors.Error, OSError) as error:
        raise UserError(f"--wandb: {error}: run wandb login, or drop --wandb") from None
