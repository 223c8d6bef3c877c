"""Between two epochs: evaluate, log, save, draw, and report the best epoch."""

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
    """Validation of a run: of its moving average if it has one, else of its model.

    Args:
        valid: loads the images of valid_index.
        sample: loads the images of train_index whose mAP is measured too; None for none.
        trained: the training loader, whose damaged images are logged.
        info: about the run, for the report: name -> value.
        single_batch: batch size of the predictions that get a picture each; None for none.
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

    def after(self, progress: EpochProgress) -> None:
        """Measure mAP and losses on the validation images and mAP on the training sample; log and save the epoch."""
        run, poll = self._run, partial(self._run.poll, lambda: progress)
        found = self._measure_valid(poll, losses=True)
        train_maps = None
        if self._sample is not None:
            metrics = self._measure(self._model, self._sample, self._train_index, sample=True, on_batch=poll).metrics
            train_maps = metrics.ap, metrics.ap50
        share_faults(run.processes, self._trained, self._valid)
        state = run.state.after(
            progress.counted, found.metrics.ap, found.metrics.ap50,
            val_losses=found.losses, train_maps=train_maps, kept=run.guard.in_a_row == 0,
        )  # fmt: skip
        report = self._report(found, state.epoch)
        run.record(state, partial(self._draw, report), report)

    def redraw(self) -> None:
        """Measure again and draw, for a run that has nothing left to train."""
        found = self._measure_valid(partial(self._run.poll, lambda: self._run.state.progress))
        self._run.redraw(partial(self._draw, self._report(found, self._run.state.epoch)))

    def complete_report(self) -> None:
        """Measure the best epoch again if it has no report: the run was killed before, or is the predecessor's."""
        run, model = self._run, self._run.updater.model
        best = None if run.has_report else best_without_report(run.folder / BEST, model, run.processes)
        if best is None:
            return
        log.info("The best epoch, %d, has no report yet: measuring it again", best["epoch"])
        run.wait()
        model.load_state_dict(best["model_state_dict"])
        run.keep_report(self._report(self._measure(model, self._valid, self._valid_index), best["epoch"]))

    def _draw(self, report: EpochReport) -> None:
        """Draw the detections above the best threshold."""
        write_prediction_pictures(
            self._run.folder, self._valid_index, report.found.detections, threshold=report.analysis.threshold,
            single_batch=self._single_batch,
        )  # fmt: skip

    def _measure_valid(self, poll: Callable[[], None], *, losses: bool = False) -> Evaluation:
        return self._measure(self._model, self._valid, self._valid_index, losses=losses, on_batch=poll)
