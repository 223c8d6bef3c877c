"""The folder of a training run: checkpoints, logs and reports, and when they are written."""

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
from torch_utils.runs.loggers import open_loggers
from torch_utils.runs.training_log import TrainingLog
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.training_state import EpochProgress, TrainingState
from torch_utils.training.update import Updater
from utils.errors import UserError
from utils.files import remove_leftovers
from utils.version import VERSION

LAST = "last_model.pth"  # the complete run: resume from it
LAST_WEIGHTS = "last_model_state.pth"  # the model after the last complete epoch
BEST = "best_model.pth"  # the model of the best epoch
TRAINED = "trained_state_dict"  # key in LAST of a run with a moving average: the weights being trained
log = logging.getLogger(__name__)


class Run:
    """Saves and logs a run. Every process creates one and makes the same calls; only the main process writes.

    A thread writes the checkpoints, BEST before LAST, so that LAST is never ahead of it. Training waits for the thread
    only if the previous checkpoint is not written yet.

    Args:
        folder: exists and belongs to this run alone.
        updater: holds the model, or a moving average of it, which is then saved instead.
        state: the state to start from.
        writer: writes checkpoints; the updater calls its wait_until_copied before it changes the weights.
        metadata: entries of every checkpoint: model_name, model_options, data, size_rule, options ...
        guard: while the last updates were skipped since their loss was not finite, LAST and LAST_WEIGHTS stay as they
            were: such weights may be unusable.
        save_or_stop: requests to save in mid-epoch, and to stop.
        wandb, mlflow: log to these too.

    Attributes:
        state: after the last complete epoch.
        has_report: whether this process reported an epoch that is better than all before.
    """

    def __init__(
        self,
        folder: Path,
        updater: Updater,
        state: TrainingState,
        writer: BackgroundWriter,
        *,
        metadata: Mapping[str, Any],
        guard: NonFiniteGuard,
        save_or_stop: SaveOrStop,
        wandb: bool = False,
        mlflow: bool = False,
    ) -> None:
        self.folder = folder
        self.processes = updater.processes
        self.updater = updater
        self.state = state
        self.guard = guard
        self.save_or_stop = save_or_stop
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__), "pipeline": VERSION}
        self.metadata = {"format": FORMAT, "versions": versions, **metadata}
        self.log = None
        self.has_report = False
        self._writer = writer
        if self.processes.is_main:
            remove_leftovers(folder)
            loggers = open_loggers(folder, metadata["options"], first_epoch=state.epoch, wandb=wandb, mlflow=mlflow)
            self.log = TrainingLog(folder, metadata["options"], loggers)

    def save(self, best: EpochReport | None = None) -> None:
        """Write the checkpoints of a complete epoch.

        Args:
            best: the report of this epoch if it is the best; BEST gets its thresholds.
        """
        rng = all_gather(self.processes, rng_state())
        self.save_or_stop.saved()
        if not self.processes.is_main:
            return
        weights, last = self._contents(self.state, rng)
        if self.guard.in_a_row:
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
            progress: of the current epoch; without it the state's own.
        """
        rng = all_gather(self.processes, rng_state())
        self.save_or_stop.saved()
        if self.processes.is_main:
            _, last = self._contents(replace(self.state, progress=progress or self.state.progress), rng)
            self._writer.write([(self.folder / LAST, last)], self.updater.stable_tensors())

    def poll(self, progress: Callable[[], EpochProgress]) -> None:
        """Save the run, or save and stop it, if a timer or a signal requests it.

        Call it between two updates, or two batches of the validation, in every process.

        Args:
            progress: returns the progress of the current epoch.

        Raises:
            Interrupted: after a signal.
        """
        request = self.save_or_stop.poll()
        if request is Request.NOTHING:
            return
        self.guard.check()
        if not self.guard.in_a_row:
            self.save_last(progress())
        if request is Request.STOP:
            self.close()
            stopped = self.save_or_stop.stop(self.resume_hint())
            cleanup()
            raise stopped

    def record(self, state: TrainingState, draw: Callable[[], None], report: EpochReport | None = None) -> None:
        """Log and save the epoch that just ended, see `save`; a thread calls `draw` to add its pictures.

        The log is written first: a run that is killed between the two repeats the epoch and its log line. If the log
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
        """Hand the report of the best epoch to a thread that writes it, at the latest in close()."""
        self.has_report = True
        if self.log is not None:
            self.log.keep_report(report.epoch, report.write)

    def redraw(self, draw: Callable[[], None]) -> None:
        """Draw the curves in a thread, which also calls `draw`."""
        if self.log is not None:
            self.log.start_drawing(self.state.history, self.state.iteration_losses.numpy(), draw)

    def wait(self) -> None:
        """Wait until the checkpoints are written; call it before anything but the updater changes the model.

        Raises:
            OSError: a checkpoint could not be written.
        """
        self._writer.wait()

    def close(self) -> None:
        """Wait until everything is written; later calls do nothing.

        Raises:
            OSError: a checkpoint could not be written.
        """
        try:
            self._writer.close()
        except OSError:  # not finally: a second signal, which ends the process at once, must not wait for the log
            self._close_log()
            raise
        self._close_log()

    def _close_log(self) -> None:
        log, self.log = self.log, None
        if log is not None:
            log.close()

    def resume_hint(self) -> str:
        """The end of an error message: what is saved, and the command that resumes it."""
        last = self.folder / LAST
        if not last.is_file():
            return "Nothing of the run is saved yet"
        when = ", as it was before its last steps were left out," if self.guard.in_a_row else ""
        return f"The run{when} is in {last}: go on with python train.py --resume-training --weights {last}"

    @contextlib.contextmanager
    def with_resume_hint(self) -> Iterator[None]:
        """Context that appends `resume_hint` to the message of a UserError.

        Raises:
            UserError: also for a file of the run that cannot be written.
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
            if error.filename is None:  # not about a file
                raise
            with contextlib.suppress(OSError):
                self.close()
            message = f"{error.filename}: cannot be written ({error.strerror}): make room, or see to the disk"
            raise UserError(f"{message}. {self.resume_hint()}") from error

    def _contents(self, state: TrainingState, rng: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Contents of the files with weights (BEST, LAST_WEIGHTS), and of LAST."""
        updater, average = self.updater, self.updater.average
        model = average.model if average else updater.model
        weights = {**self.metadata, "epoch": state.epoch, "model_state_dict": model.state_dict()}
        last = {
            **weights,
            **state.as_checkpoint(),
            **({TRAINED: updater.model.state_dict()} if average else {}),
            "optimizer_state_dict": updater.optimizer.state_dict(),
            "scaler_state_dict": updater.precision.scaler.state_dict(),
            "rng": list(rng),
        }
        return weights, last
