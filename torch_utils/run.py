"""The folder of a training run: what is saved in it, and when."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from torch_utils.checkpoint import FORMAT, rng_state, save_checkpoint, set_rng_state
from torch_utils.distributed import Processes, gathered
from torch_utils.precision import Precision
from torch_utils.training_state import TrainingState
from utils.errors import UserError
from utils.files import remove_leftovers
from utils.training_log import RESULTS, TrainingLog
from utils.version import VERSION

LAST = "last_model.pth"  # the whole run: resume from it
LAST_WEIGHTS = "last_model_state.pth"  # its model
BEST = "best_model.pth"  # the model of the best epoch
log = logging.getLogger(__name__)


class Run:
    """Saves and logs epochs. Every process makes one and calls it; only the main one writes.

    Args:
        folder: exists, and is this run's alone.
        about: what every checkpoint says of the model: model_name, model_options, data, size_rule, options ...
        first_epoch: number of whole epochs that a resumed run comes with.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        *,
        about: Mapping[str, Any],
        first_epoch: int,
        wandb: bool,
    ) -> None:
        self.folder = folder
        self.processes = processes
        self.model, self.optimizer, self.precision = model, optimizer, precision
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "pipeline": VERSION}
        self.about = {"format": FORMAT, "versions": versions, **about}
        self.log = None
        if processes.is_main:
            remove_leftovers(folder)
            self.log = TrainingLog(folder, about["options"], first_epoch=first_epoch, wandb=wandb)

    def save(self, state: TrainingState) -> None:
        """Write the checkpoints of this moment: the best one first, so that the last never is ahead of it."""
        rng = gathered(self.processes, rng_state())
        if not self.processes.is_main:
            return
        weights = {**self.about, "epoch": state.epoch, "model_state_dict": self.model.state_dict()}
        if state.improved:
            log.info("BEST VALIDATION mAP: %s", state.best_map)
            log.info("SAVING BEST MODEL FOR EPOCH: %d", state.epoch)
            save_checkpoint(self.folder / BEST, {**weights, "best_map": state.best_map})
        save_checkpoint(self.folder / LAST_WEIGHTS, weights)
        whole = {
            **weights,
            **state.as_checkpoint(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scaler_state_dict": self.precision.scaler.state_dict(),
            "rng": list(rng),
        }
        save_checkpoint(self.folder / LAST, whole)

    def record(self, state: TrainingState, draw: Callable[[], None]) -> None:
        """Log and save the epoch that just ended; `draw` adds pictures of it from a thread.

        The log comes first: a run that is killed between the two does the epoch again, and logs it again.
        """
        if self.log is not None:
            self.log.write_epoch(state.history)
        self.save(state)
        self.redraw(state, draw)

    def redraw(self, state: TrainingState, draw: Callable[[], None]) -> None:
        """Draw the curves, and what `draw` adds, from a thread."""
        if self.log is not None:
            self.log.start_drawing(state.history, state.iteration_losses.numpy(), draw)

    def close(self) -> None:
        """Wait for what is still being written."""
        if self.log is not None:
            self.log.close()


def carry_over(old: Path, new: Path) -> None:
    """Copy what a run has so far into the folder in which it goes on."""
    for name in (RESULTS, BEST, LAST_WEIGHTS, LAST):
        if (old / name).is_file():
            shutil.copyfile(old / name, new / name)


def restore(
    checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer, precision: Precision, processes: Processes
) -> TrainingState:
    """Put optimizer, scaler and random numbers back as Run.save found them, and return the state.

    Raises:
        UserError: the run had another optimizer, or trained other parameters, or its state is damaged.
    """
    saved = checkpoint["optimizer_state_dict"]
    try:
        kind = "AdamW" if "betas" in saved["param_groups"][0] else "SGD"
        if kind != type(optimizer).__name__:
            raise UserError(
                f"--optimizer {type(optimizer).__name__}: the run to resume has the state of {kind}: drop --optimizer, "
                "or start a new run from its weights, without --resume-training"
            )
        optimizer.load_state_dict(saved)
        if checkpoint.get("scaler_state_dict"):
            precision.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        rng = checkpoint.get("rng", [])
        if len(rng) == processes.world_size:  # else the run changes hands, and draws new numbers
            set_rng_state(rng[processes.rank])
        return TrainingState.from_checkpoint(checkpoint)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the run's state is damaged, or does not fit its model ({error}): start a new run from these weights, "
            "without --resume-training"
        ) from None
