"""Loggers of a run besides its folder: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import io
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from utils.errors import MissingPackageError, UserError, requires_package

if TYPE_CHECKING:  # each is imported by its logger alone
    from PIL.Image import Image

log = logging.getLogger(__name__)

_PROJECT = "fasterrcnn"  # in Weights & Biases; the experiment of MLflow, unless MLFLOW_EXPERIMENT_NAME names another
_MLRUNS = "mlruns"  # in the run's folder, without MLFLOW_TRACKING_URI
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of a batch, as MLflow's REST API has it
_TRACKERS = {"wandb": "Weights & Biases", "mlflow": "MLflow"}  # module and flag -> its name


class MetricsLogger(Protocol):
    """Takes what a run says after its epochs, which count from 1. Several threads may call it."""

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        """Numbers by name; NaN where there is none."""

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        """PNG or JPEG files by name."""

    def close(self) -> None:
        """Write what is left, and end."""


def check_trackers(**wished: bool) -> None:
    """UserError if a tracker of these, wandb or mlflow, is wished for and not installed."""
    for module, name in _TRACKERS.items():
        spec = importlib.util.find_spec(module) if wished[module] else None
        if wished[module] and (spec is None or spec.origin is None):  # a folder of that name has no origin
            raise UserError(
                f"--{module}: {name} is not installed: pip install {module}, or drop --{module} (a run that goes on "
                f"has it without being told: --no-{module})"
            )


def open_loggers(
    folder: Path, options: Mapping[str, Any], *, first_epoch: int, wandb: bool, mlflow: bool
) -> list[MetricsLogger]:
    """The loggers of a run in `folder`.

    Args:
        options: of the run, plain values by name.
        first_epoch: number of whole epochs that a resumed run comes with.

    Raises:
        UserError: a tracker cannot start.
    """
    loggers: list[MetricsLogger] = []
    try:
        loggers.append(InBackground("TensorBoard", TensorBoard(folder, first_epoch)))
    except MissingPackageError as error:
        log.warning("%s; training continues without it", error)
    if wandb:
        loggers.append(InBackground("--wandb", WeightsAndBiases(folder, options)))
    if mlflow:
        loggers.append(InBackground("--mlflow", MLflow(folder, options)))
    return loggers


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        with requires_package("tensorboard", "TensorBoard logging"):
            from torch.utils.tensorboard import SummaryWriter

        # Events that a killed run wrote after its last checkpoint are hidden by those of the resumed one.
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        """See MetricsLogger."""
        for key, value in row.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        """See MetricsLogger."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, data in pictures.items():  # as they are: add_image would take seconds to compress them again
            width, height = _opened(data).size
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), epoch)
        self._writer.flush()

    def close(self) -> None:
        """See MetricsLogger."""
        self._writer.close()


class WeightsAndBiases:
    """A run on the server that `wandb login` chose, or, with WANDB_MODE=offline, in the run's folder."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        import wandb

        self._image = wandb.Image
        try:
            self._run = wandb.init(project=_PROJECT, name=folder.name, dir=str(folder), config=dict(options))
        except (wandb.errors.Error, OSError) as error:
            raise UserError(f"--wandb: {error}: run wandb login, or drop --wandb") from None
        self._run.define_metric("epoch")  # not W&B's own step, which must not fall: pictures may be an epoch late
        self._run.define_metric("*", step_metric="epoch")

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        """See MetricsLogger."""
        self._run.log({"epoch": epoch, **_defined(row)})

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        """See MetricsLogger."""
        images = {name: self._image(_opened(data).convert("RGB")) for name, data in pictures.items()}
        self._run.log({"epoch": epoch, **images})

    def close(self) -> None:
        """See MetricsLogger."""
        self._run.finish()


class MLflow:
    """A run on the server of MLFLOW_TRACKING_URI, or in the folder mlruns of the run's."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if not server:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # from 3.17 on a folder is refused without it
        from mlflow import MlflowClient  # not its fluent API, which has one run a thread
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self._metric = Metric
        where = server or (folder / _MLRUNS).resolve().as_uri()
        try:
            self._client = MlflowClient(tracking_uri=where)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            there = self._client.get_experiment_by_name(name)
            experiment = there.experiment_id if there else self._client.create_experiment(name)
            self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
            params = [Param(key, str(value)) for key, value in options.items()]
            for start in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(self._run, params=params[start : start + _MOST_PARAMS])
        except (MlflowException, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise UserError(f"--mlflow: {where}: {first_line}: see MLFLOW_TRACKING_URI, or drop --mlflow") from None

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        """See MetricsLogger."""
        now = int(time.time() * 1000)
        metrics = [self._metric(_mlflow_name(key), value, now, epoch) for key, value in _defined(row).items()]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + _MOST_METRICS])

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        """See MetricsLogger."""
        for name, data in pictures.items():
            self._client.log_image(self._run, _opened(data).convert("RGB"), key=name, step=epoch)

    def close(self) -> None:
        """See MetricsLogger."""
        self._client.set_terminated(self._run)


class InBackground:
    """A logger behind a network or on a disk: nobody waits for it but close(), and what fails there ends no run.

    Calls are made by a thread, in their order. One that fails is made again when the next comes, and once more by
    close(), so nothing is lost while a server restarts.

    Args:
        name: of the logger, for messages.
    """

    def __init__(self, name: str, logger: MetricsLogger) -> None:
        self._name, self._logger = name, logger
        self._calls: deque[Callable[[], None]] = deque()
        self._adding = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._sending: Future[None] | None = None
        self._has_warned = False

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        """See MetricsLogger."""
        self._add(partial(self._logger.scalars, dict(row), epoch))

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        """See MetricsLogger."""
        self._add(partial(self._logger.pictures, dict(pictures), epoch))

    def close(self) -> None:
        """See MetricsLogger."""
        self._finish()
        self._run(self._send)
        if self._calls:
            log.warning("%s: %d entries of the log could not be sent", self._name, len(self._calls))
        self._run(self._logger.close)
        self._thread.shutdown()

    def _add(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        with self._adding:
            if self._sending is None or self._sending.done():
                self._finish()
                self._sending = self._thread.submit(self._send)

    def _send(self) -> None:
        while self._calls:
            self._calls[0]()
            self._calls.popleft()

    def _run(self, job: Callable[[], None]) -> None:
        self._sending = self._thread.submit(job)
        self._finish()

    def _finish(self) -> None:
        """Wait for the thread, and say once that it failed."""
        error = self._sending.exception() if self._sending is not None else None
        if error is not None and not self._has_warned:
            self._has_warned = True
            log.warning("%s: cannot be written to (%s): the run goes on, and tries again", self._name, error)


def _defined(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if value == value}


def _opened(data: bytes) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(data))


def _mlflow_name(key: str) -> str:
    """Without the characters that MLflow refuses, and without the dots that make a path of it."""
    return re.sub(r"[^\w /-]", "_", key)
