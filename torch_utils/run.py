"""The folder of a training run: what is saved in it, and when."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from torch_utils.checkpoint import FORMAT, rng_state, save_checkpoint
from torch_utils.distributed import gathered
from torch_utils.epoch_report import EpochReport
from torch_utils.optimization import LR_SCALE
from torch_utils.training_state import TrainingState
from torch_utils.update import Updater
from utils.files import remove_leftovers
from utils.sinks import open_sinks
from utils.training_log import TrainingLog
from utils.version import VERSION

LAST = "last_model.pth"  # the whole run: resume from it
LAST_WEIGHTS = "last_model_state.pth"  # its model
BEST = "best_model.pth"  # the model of the best epoch
TRAINED = "trained_state_dict"  # in LAST, where the model is a moving average: the weights that are trained
_OWN = (LR_SCALE, "weight_decay", "fused", "foreach")  # of a parameter group: by options and device, not by the file
log = logging.getLogger(__name__)


class Run:
    """Saves and logs epochs. Every process makes one and calls it; only the main one writes.

    Args:
        folder: exists, and is this run's alone.
        updater: has the model, or a moving average of it, which is then saved in its place.
        about: what every checkpoint says of the model: model_name, model_options, data, size_rule, options ...
        first_epoch: number of whole epochs that a resumed run comes with.
    """

    def __init__(
        self,
        folder: Path,
        updater: Updater,
        *,
        about: Mapping[str, Any],
        first_epoch: int,
        wandb: bool,
        mlflow: bool,
    ) -> None:
        self.folder = folder
        self.processes = updater.processes
        self.updater = updater
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "pipeline": VERSION}
        self.about = {"format": FORMAT, "versions": versions, **about}
        self.log = None
        self.has_report = False  # of an epoch that is better than those that a resumed run comes with
        if self.processes.is_main:
            remove_leftovers(folder)
            sinks = open_sinks(folder, about["options"], first_epoch=first_epoch, wandb=wandb, mlflow=mlflow)
            self.log = TrainingLog(folder, about["options"], sinks)

    def save(self, state: TrainingState, *, whole: bool = True, thresholds: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoints of this moment: the best one first, so that the last never is ahead of it.

        Args:
            thresholds: what the best one says of scores.
            whole: False leaves the last ones as they are, since the run may not be able to go on from this moment.
        """
        rng = gathered(self.processes, rng_state())
        if not self.processes.is_main:
            return
        updater, average = self.updater, self.updater.average
        model = average.model if average else updater.model
        weights = {**self.about, "epoch": state.epoch, "model_state_dict": model.state_dict()}
        if state.improved and whole:
            log.info("BEST VALIDATION mAP: %s", state.best_map)
            log.info("SAVING BEST MODEL FOR EPOCH: %d", state.epoch)
            save_checkpoint(self.folder / BEST, {**weights, "best_map": state.best_map, **(thresholds or {})})
        if not whole:
            log.warning("%s stays as it was, since the last steps of the epoch were left out", self.folder / LAST)
            return
        save_checkpoint(self.folder / LAST_WEIGHTS, weights)
        whole = {
            **weights,
            **state.as_checkpoint(),
            **({TRAINED: updater.model.state_dict()} if average else {}),
            "optimizer_state_dict": updater.optimizer.state_dict(),
            "scaler_state_dict": updater.precision.scaler.state_dict(),
            "rng": list(rng),
        }
        save_checkpoint(self.folder / LAST, whole)

    def record(
        self,
        state: TrainingState,
        draw: Callable[[], None],
        *,
        whole: bool = True,
        report: Callable[[int], EpochReport] | None = None,
    ) -> None:
        """Log and save the epoch that just ended, see `save`; `draw` adds pictures of it from a thread.

        The log comes first: a run that is killed between the two does the epoch again, and logs it again.

        Args:
            report: makes the report of the epoch of this number; asked for if it is the best.
        """
        best = report(state.epoch) if report is not None and state.improved and whole else None
        if self.log is not None:
            self.log.write_epoch(state.history)
        self.save(state, whole=whole, thresholds=best.thresholds() if best and self.processes.is_main else None)
        if best is not None:
            self.keep_report(best)
        self.redraw(state, draw)

    def keep_report(self, report: EpochReport) -> None:
        """Have the report of the best epoch written, from a thread or by close()."""
        self.has_report = True
        if self.log is not None:
            self.log.keep_report(report.epoch, report.write)

    def redraw(self, state: TrainingState, draw: Callable[[], None]) -> None:
        """Draw the curves, and what `draw` adds, from a thread."""
        if self.log is not None:
            self.log.start_drawing(state.history, state.iteration_losses.numpy(), draw)

    def close(self) -> None:
        """Wait for what is still being written."""
        if self.log is not None:
            self.log.close()
