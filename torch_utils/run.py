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
from torch_utils.optimization import LR_SCALE
from torch_utils.precision import Precision
from torch_utils.training_state import TrainingState
from torch_utils.update import Updater
from utils.errors import UserError
from utils.files import remove_leftovers
from utils.training_log import RESULTS, TrainingLog
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
    ) -> None:
        self.folder = folder
        self.processes = updater.processes
        self.updater = updater
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "pipeline": VERSION}
        self.about = {"format": FORMAT, "versions": versions, **about}
        self.log = None
        if self.processes.is_main:
            remove_leftovers(folder)
            self.log = TrainingLog(folder, about["options"], first_epoch=first_epoch, wandb=wandb)

    def save(self, state: TrainingState, *, whole: bool = True) -> None:
        """Write the checkpoints of this moment: the best one first, so that the last never is ahead of it.

        Args:
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
            save_checkpoint(self.folder / BEST, {**weights, "best_map": state.best_map})
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

    def record(self, state: TrainingState, draw: Callable[[], None], *, whole: bool = True) -> None:
        """Log and save the epoch that just ended, see `save`; `draw` adds pictures of it from a thread.

        The log comes first: a run that is killed between the two does the epoch again, and logs it again.
        """
        if self.log is not None:
            self.log.write_epoch(state.history)
        self.save(state, whole=whole)
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


def recipe_of_older_run(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a run had before there were flags for them: it decayed all parameters, in one group or by stages."""
    if "decay_all" in checkpoint.get("options", {}):
        return {}
    groups = checkpoint["optimizer_state_dict"].get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups else {}
    decay = first.get("weight_decay") if isinstance(first, Mapping) else None
    return {"decay_all": True, "weight_decay": decay}


def restore(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    processes: Processes,
) -> TrainingState:
    """Put trained weights, optimizer, scaler and random numbers back as Run.save found them, and return the state.

    Args:
        model: has the checkpoint's model_state_dict; if that is a moving average, the trained weights take its place.

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
        if TRAINED in checkpoint:
            model.load_state_dict(checkpoint[TRAINED])
        _load_optimizer(optimizer, saved)
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


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load momenta and the like. What options and device decide of a group stays as the optimizer has it."""
    groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    sizes, saved_sizes = ([len(group["params"]) for group in of] for of in (groups, saved_groups))
    if sizes != saved_sizes and sum(sizes) == sum(saved_sizes):
        raise UserError(
            f"the run to resume has its parameters in {len(saved_sizes)} group(s), and --decay-all, --weight-decay and "
            f"--layer-decay make {len(sizes)}: drop these flags, or start a new run, without --resume-training"
        )
    mixed = [
        {**theirs, **{name: ours[name] for name in _OWN if name in ours}}
        for ours, theirs in zip(groups, saved_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": mixed})
