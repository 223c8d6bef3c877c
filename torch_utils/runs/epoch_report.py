"""The report of a run's best epoch: thresholds for its checkpoint, and the files of eval.py in the run's folder."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import Processes, broadcast_from_main
from torch_utils.evaluation.detection_analysis import DetectionAnalysis, analyze_detections
from torch_utils.evaluation.eval_plots import PLOTS
from torch_utils.evaluation.evaluation_files import METRICS, REPORT, WORST_IMAGES, write_evaluation
from torch_utils.evaluation.result import Evaluation
from torch_utils.runs.training_log import WrittenReport
from utils.errors import UserError
from utils.labels.index import LabelIndex

REPORT_FILES = (METRICS, REPORT, WORST_IMAGES, *PLOTS)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochReport:
    """Report of an epoch; that of the best epoch replaces the files of the best one before."""

    folder: Path  # of the run
    index: LabelIndex  # of the validation split
    info: Mapping[str, str]  # about the run, for the page: name -> value
    found: Evaluation
    epoch: int

    @cached_property
    def analysis(self) -> DetectionAnalysis:
        """Computed on first use."""
        return analyze_detections(self.index, self.found.detections)

    def thresholds(self) -> dict[str, Any]:
        """Entries of best_model.pth."""
        said = self.analysis.as_dict()
        return {"best_threshold": said["best_threshold"], "class_thresholds": said["best_threshold_of_class"]}

    def write(self) -> WrittenReport:
        """Write REPORT_FILES; any thread may do it.

        Raises:
            DataError: an image can no longer be read.
            OSError: a file cannot be written.
        """
        metrics = self.found.metrics
        info = {**self.info, "epoch": f"{self.epoch}, the best so far"}
        write_evaluation(
            self.folder, self.index, self.found.detections, metrics,
            analysis=self.analysis, title=f"Best epoch of {self.folder.name}", info=info,
            numbers={"epoch": self.epoch},
        )  # fmt: skip
        said = self.analysis.as_dict()
        at_best = {f"best threshold/{name}": value for name, value in said["at_best_threshold"].items()}
        per_class = {f"AP/{of_class.name}": of_class.ap for of_class in metrics.per_class}
        numbers = {"best threshold/score": said["best_threshold"], **at_best, **per_class}
        drawn = (self.folder / name for name in (*PLOTS, WORST_IMAGES))
        return WrittenReport(
            {name: float("nan") if value is None else value for name, value in numbers.items()},
            {path.stem: path.read_bytes() for path in drawn if path.is_file()},
        )


def best_without_report(path: Path, model: nn.Module, processes: Processes) -> Mapping[str, Any] | None:
    """The checkpoint of the best epoch, if the report beside it is of another one; every process calls this.

    A run was killed before it wrote that report, or it is one of the predecessor's. Without a checkpoint, and with one
    that is not of this model, there is nothing to be done.
    """

    def lacking() -> Mapping[str, Any] | None:
        if not path.is_file():
            return None
        try:
            best = load_checkpoint(path)
        except UserError as error:
            log.warning("There is no report of the best epoch: %s", error)
            return None
        if best.get("epoch") == _epoch_of_report(path.parent):
            return None
        if _shapes(best["model_state_dict"]) != _shapes(model.state_dict()):
            log.warning("There is no report of the best epoch: %s has another model than this run", path)
            return None
        return {"epoch": best.get("epoch", 0), "model_state_dict": best["model_state_dict"]}

    return broadcast_from_main(processes, lacking)


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: getattr(value, "shape", None) for key, value in state.items()}


def _epoch_of_report(folder: Path) -> int | None:
    try:
        said = json.loads((folder / METRICS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return said.get("epoch") if isinstance(said, dict) and (folder / REPORT).is_file() else None
