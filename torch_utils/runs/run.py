"""The folder of a training run: what is saved in it, and when."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision

from torch_utils.checkpoint import FORMAT, rng_state
from torch_utils.distributed import all_gather, cleanup
from torch_utils.runs.background_writer import BackgroundWriter
from torch_utils.runs.epoch_report import EpochReport
from torch_utils.runs.interruption import Request, SaveOrStop
from torch_utils.runs.loggers import open_sinks
from torch_utils.runs.training_log import TrainingLog
from torch_utils.training.loss_watch import NonFiniteGuard
from torch_utils.training.training_state import EpochProgress, TrainingState
from torch_utils.training.update import Updater
from utils.errors import UserError
from utils.files import remove_leftovers
from utils.version import VERSION

LAST = "last_model.pth"  # the whole run: resume from it
LAST_WEIGHTS = "last_model_state.pth"  # the model of its last whole epoch
BEST = "best_model.pth"  # the model of the best epoch
TRAINED = "trained_state_dict"  # in LAST, where the model is a moving average: the weights that are trained
log = logging.getLogger(__name__)


class Run:
    """Saves and logs a run. Every process makes one and calls it alike; only the main one writes.

    Checkpoints are written by a thread, BEST first, so that LAST never is ahead of it; training waits for the thread
    only where it has not written the one before.

    Args:
        folder: exists, and is this run's alone.
        updater: has the model, or a moving average of it, which is then saved in its place.
        state: where the run stands.
        about: what every checkpoint says of the model: model_name, model_options, data, size_rule, options ...
        watch: knows of losses that are not finite. While the last updates were left out, LAST and LAST_WEIGHTS stay as
            they were: the run may not be able to go on from such a moment.
        interruption: says when to save in mid-epoch, and when to end.

    Attributes:
        state: after the last whole epoch.
        has_report: of an epoch that is better than those that a resumed run comes with.
    """

    def __init__(
        self,
        folder: Path,
        updater: Updater,
        state: TrainingState,
        *,
        about: Mapping[str, Any],
        watch: NonFiniteGuard,
        interruption: SaveOrStop,
        wandb: bool = False,
        mlflow: bool = False,
    ) -> None:
        self.folder = folder
        self.processes = updater.processes
        self.updater = updater
        self.state = state
        self.watch = watch
        self.interruption = interruption
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "pipeline": VERSION}
        self.about = {"format": FORMAT, "versions": versions, **about}
        self.log = None
        self.has_report = False
        self._writer = BackgroundWriter()
        updater.pre_step_hook = self._writer.wait_until_copied
        if self.processes.is_main:
            remove_leftovers(folder)
            sinks = open_sinks(folder, about["options"], first_epoch=state.epoch, wandb=wandb, mlflow=mlflow)
            self.log = TrainingLog(folder, about["options"], sinks)

    def save(self, best: EpochReport | None = None) -> None:
        """Write the checkpoints of a whole epoch.

        Args:
            best: of this epoch, if it is the best; BEST gets its thresholds.
        """
        rng = all_gather(self.processes, rng_state())
        self.interruption.saved()
        if not self.processes.is_main:
            return
        weights, last = self._contents(self.state, rng)
        if self.watch.in_a_row:
            log.warning("%s stays as it was, since the last steps of the epoch were left out", self.folder / LAST)
            return
        files = []
        if self.state.improved:
            log.info("BEST VALIDATION mAP: %s", self.state.best_map)
            log.info("SAVING BEST MODEL FOR EPOCH: %d", self.state.epoch)
            thresholds = best.thresholds() if best is not None else {}
            files.append((self.folder / BEST, {**weights, "best_map": self.state.best_map, **thresholds}))
        files += [(self.folder / LAST_WEIGHTS, weights), (self.folder / LAST, last)]
        self._writer.write(files, self.updater.stable_tensors())

    def save_last(self, progress: EpochProgress | None = None) -> None:
        """Write LAST alone.

        Args:
            progress: what there is of the epoch; without it the state's own.
        """
        rng = all_gather(self.processes, rng_state())
        self.interruption.saved()
        if self.processes.is_main:
            _, last = self._contents(replace(self.state, progress=progress or self.state.progress), rng)
            self._writer.write([(self.folder / LAST, last)], self.updater.stable_tensors())

    def pause(self, so_far: Callable[[], EpochProgress]) -> None:
        """Between two updates, or two batches of the validation: save the run if that is wished, or end it.

        Args:
            so_far: what there is of the epoch.

        Raises:
            Interrupted: after a signal.
        """
        wish = self.interruption.wish()
        if wish is Request.NOTHING:
            return
        self.watch.look()
        if not self.watch.in_a_row:
            self.save_last(so_far())
        if wish is Request.STOP:
            self.close()
            stopped = self.interruption.stop(self.resume_hint())
            cleanup()
            raise stopped

    def record(self, state: TrainingState, draw: Callable[[], None], report: EpochReport | None = None) -> None:
        """Log and save the epoch that just ended, see `save`; `draw` adds pictures of it from a thread.

        The log comes first: a run that is killed between the two does the epoch again, and logs it again. Where it
        cannot be written, the epoch is saved nevertheless.

        Args:
            report: of this epoch; kept if it is the best.
        """
        self.state = state
        best = report if state.improved else None
        try:
            if self.log is not None:
                self.log.write_epoch(state.history)
        finally:
            self.save(best)
        if best is not None:
            self.keep_report(best)
        self.redraw(draw)

    def keep_report(self, report: EpochReport) -> None:
        """Have the report of the best epoch written, from a thread or by close()."""
        self.has_report = True
        if self.log is not None:
            self.log.keep_report(report.epoch, report.write)

    def redraw(self, draw: Callable[[], None]) -> None:
        """Draw the curves, and what `draw` adds, from a thread."""
        if self.log is not None:
            self.log.start_drawing(self.state.history, self.state.iteration_losses.numpy(), draw)

    def wait(self) -> None:
        """Wait until the checkpoints are written: before anything but the updater changes the model.

        Raises:
            OSError: one could not be.
        """
        self._writer.wait()

    def close(self) -> None:
        """Wait for what is still being written; only the first call does something.

        Raises:
            OSError: a checkpoint could not be.
        """
        try:
            self._writer.close()
        except OSError:  # a signal that asks for the end at once is none
            self._close_log()
            raise
        self._close_log()

    def _close_log(self) -> None:
        log, self.log = self.log, None
        if log is not None:
            log.close()

    def resume_hint(self) -> str:
        """What is safe on the disk, and the command that goes on from there."""
        last = self.folder / LAST
        if not last.is_file():
            return "Nothing of the run is on the disk"
        which = ", as it was before its last steps were left out," if self.watch.in_a_row else ""
        return f"The run{which} is in {last}: go on with python train.py --resume-training --weights {last}"

    @contextlib.contextmanager
    def with_resume_hint(self) -> Iterator[None]:
        """Whatever a user can put right ends the run with a message that says how to go on.

        Raises:
            UserError: also where a file of the run cannot be written.
        """
        try:
            yield
        except UserError as error:
            unsaved = ""
            try:
                self.close()
            except OSError as other:
                unsaved = f". {other.filename}: cannot be written ({other.strerror})"
            raise type(error)(f"{error}{unsaved}. {self.resume_hint()}") from error
        except OSError as error:
            if error.filename is None:  # none of a file
                raise
            with contextlib.suppress(OSError):
                self.close()
            what = f"{error.filename}: cannot be written ({error.strerror}): make room, or see to the disk"
            raise UserError(f"{what}. {self.resume_hint()}") from error

    def _contents(self, state: TrainingState, rng: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What goes into the files of the weights, and into that of the whole run."""
        updater, average = self.updater, self.updater.average
        model = average.model if average else updater.model
        weights = {**self.about, "epoch": state.epoch, "model_state_dict": model.state_dict()}
        last = {
            **weights,
            **state.as_checkpoint(),
            **({TRAINED: updater.model.state_dict()} if average else {}),
            "optimizer_state_dict": updater.optimizer.state_dict(),
            "scaler_state_dict": updater.precision.scaler.state_dict(),
            "rng": list(rng),
        }
        return weights, last
