"""What a run does between two epochs: measure, record, draw, and report the best epoch."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from models.rcnn.detector import FasterRCNN
from torch_utils.distributed import share_faults
from torch_utils.engine import evaluate
from torch_utils.evaluation.result import Evaluation
from torch_utils.runs.epoch_report import EpochReport, best_without_report
from torch_utils.runs.run import BEST, Run
from torch_utils.training.training_state import EpochProgress
from utils.labels.index import LabelIndex
from utils.loading.loader import Loader
from utils.visualize.pictures import write_prediction_pictures

log = logging.getLogger(__name__)


class Validation:
    """The validation of a run, of its moving average where it has one.

    Args:
        valid: loads the images of valid_index.
        sample: loads the images of train_index whose mAP is measured too; None: none.
        trained: what the epochs load, whose damaged images all processes are told of.
        facts: about the run, for the report: name -> value.
        single_batch: images of a batch, where each gets a picture of its own.
    """

    def __init__(
        self,
        run: Run,
        valid_index: LabelIndex,
        train_index: LabelIndex,
        *,
        valid: Loader,
        sample: Loader | None,
        trained: Loader,
        info: Mapping[str, str],
        single_batch: int | None,
    ) -> None:
        updater = run.updater
        self._run, self._valid_index, self._train_index = run, valid_index, train_index
        self._valid, self._sample, self._trained = valid, sample, trained
        self._model: FasterRCNN = updater.average.model if updater.average else updater.model
        self._measure = partial(evaluate, precision=updater.precision, processes=run.processes)
        self._report = partial(EpochReport, run.folder, valid_index, info)
        self._single_batch = single_batch

    def after(self, done: EpochProgress) -> None:
        """Measure mAP and losses of a whole epoch, and the mAP of the training sample; log and save the epoch."""
        run, pause = self._run, partial(self._run.pause, lambda: done)
        found = self._measure_valid(pause, losses=True)
        train_maps = None
        if self._sample is not None:
            metrics = self._measure(self._model, self._sample, self._train_index, sample=True, pause=pause).metrics
            train_maps = metrics.ap, metrics.ap50
        share_faults(run.processes, self._trained, self._valid)
        state = run.state.after(
            done.counted, found.metrics.ap, found.metrics.ap50,
            val_losses=found.losses, train_maps=train_maps, kept=run.watch.in_a_row == 0,
        )  # fmt: skip
        report = self._report(found, state.epoch)
        run.record(state, partial(self._draw, report), report)

    def redraw(self) -> None:
        """Measure again and draw: of a run that has nothing left to train."""
        found = self._measure_valid(partial(self._run.pause, lambda: self._run.state.progress))
        self._run.redraw(partial(self._draw, self._report(found, self._run.state.epoch)))

    def complete_report(self) -> None:
        """Measure the best epoch again if it has no report: its run was killed before, or was the predecessor's."""
        run, model = self._run, self._run.updater.model
        best = None if run.has_report else best_without_report(run.folder / BEST, model, run.processes)
        if best is None:
            return
        log.info("The best epoch, %d, has no report yet: measuring it again", best["epoch"])
        run.wait()
        model.load_state_dict(best["model_state_dict"])
        run.keep_report(self._report(self._measure(model, self._valid, self._valid_index), best["epoch"]))

    def _draw(self, report: EpochReport) -> None:
        """Whatever the detector's scores are: what it would find at the best threshold."""
        write_prediction_pictures(
            self._run.folder, self._valid_index, report.found.detections, threshold=report.analysis.threshold,
            single_batch=self._single_batch,
        )  # fmt: skip

    def _measure_valid(self, pause: Callable[[], None], *, losses: bool = False) -> Evaluation:
        return self._measure(self._model, self._valid, self._valid_index, losses=losses, pause=pause)
