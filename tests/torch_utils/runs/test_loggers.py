"""Loggers of a run. W&B and MLflow are stand-ins with the signatures of their real API."""

import io
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torch_utils.runs.loggers import InBackground, MLflow, TensorBoard, WeightsAndBiases, check_trackers, open_loggers
from utils.errors import UserError

WANDB = """
from types import SimpleNamespace
class Error(Exception): ...
errors = SimpleNamespace(Error=Error)
calls = []
class Image:
    def __init__(self, data_or_path, mode=None, caption=None, grouping=None):
        self.size = data_or_path.size
class Run:
    def define_metric(self, name, step_metric=None, step_sync=None, hidden=None, summary=None):
        calls.append(("define", name, step_metric))
    def log(self, data, step=None, commit=None):
        calls.append(("log", data, step))
    def finish(self, exit_code=None):
        calls.append(("finish",))
def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None):
    if config.get("fails"):
        raise Error("no API key configured")
    calls.append(("init", project, name, config))
    return Run()
"""
MLFLOW = """
import re
from types import SimpleNamespace
from mlflow.exceptions import MlflowException
calls = []
class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        calls.append(("client", tracking_uri))
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name, artifact_location=None, tags=None):
        calls.append(("experiment", name))
        return "7"
    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        calls.append(("run", experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))
    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        if len(params) > 100:
            raise MlflowException("too many params")
        if any(p.value == "fails" for p in params):
            raise MlflowException("API request failed\\nwith more lines")
        for metric in metrics:
            if not re.fullmatch(r"[\\w./ :-]+", metric.key):
                raise MlflowException("Invalid name")
        calls.append(("batch", run_id, {m.key: (m.value, m.step) for m in metrics}, {p.key: p.value for p in params}))
    def log_image(self, run_id, image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=None):
        calls.append(("image", run_id, image.size, key, step))
    def set_terminated(self, run_id, status=None, end_time=None):
        calls.append(("end", run_id))
"""
ENTITIES = """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.key, self.value, self.timestamp, self.step = key, value, timestamp, step
class Param:
    def __init__(self, key, value):
        self.key, self.value = key, value
"""


@pytest.fixture
def trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for wandb and mlflow in the place of whatever is installed."""
    for name, content in {
        "wandb/__init__.py": WANDB, "mlflow/__init__.py": MLFLOW, "mlflow/entities.py": ENTITIES,
        "mlflow/exceptions.py": "class MlflowException(Exception): ...",
    }.items():  # fmt: skip
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # so that what the sink sets is taken back
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in [n for n in sys.modules if n.split(".")[0] in ("wandb", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("wandb", "mlflow")]:
        del sys.modules[name]


def picture(color: tuple[int, int, int], kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 8), color).save(file, kind)
    return file.getvalue()


def test_tensorboard_has_numbers_and_pictures(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path, 0)
    logger.scalars({"map": 0.25, "nothing": float("nan")}, 3)
    logger.pictures({"f1_curve": picture((200, 10, 10)), "worst": picture((9, 9, 9), "jpeg")}, 3)
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("map")] == [(3, 0.25)]
    assert set(events.Tags()["images"]) == {"f1_curve", "worst"}
    shown = cv2.imdecode(np.frombuffer(events.Images("f1_curve")[0].encoded_image_string, np.uint8), 1)
    assert shown.shape == (8, 12, 3)
    assert shown[0, 0].tolist() == [10, 10, 200]


def test_weights_and_biases_counts_in_epochs(trackers: None, tmp_path: Path) -> None:
    """Its own step must not fall, and pictures may come an epoch late: they were dropped."""
    logger = WeightsAndBiases(tmp_path, {"lr": 0.1})
    import wandb

    logger.scalars({"map": 0.5, "nothing": float("nan")}, 2)
    logger.pictures({"f1_curve": picture((1, 2, 3))}, 1)
    logger.close()
    init, *defined, scalars, pictures, end = wandb.calls
    assert init == ("init", "fasterrcnn", tmp_path.name, {"lr": 0.1})
    assert defined == [("define", "epoch", None), ("define", "*", "epoch")]
    assert scalars == ("log", {"epoch": 2, "map": 0.5}, None)
    assert (pictures[1]["epoch"], pictures[1]["f1_curve"].size, pictures[2]) == (1, (12, 8), None)
    assert end == ("finish",)


def test_mlflow_writes_into_the_runs_folder(trackers: None, tmp_path: Path) -> None:
    logger = MLflow(tmp_path, {f"option {i}": i for i in range(130)})
    import mlflow

    logger.scalars({"AP/a$<b>..": 0.5, "map_05": 0.25, "nothing": float("nan")}, 4)
    logger.pictures({"f1_curve": picture((1, 2, 3))}, 4)
    logger.close()
    client, experiment, run, first, second, metrics, image, end = mlflow.calls
    assert client == ("client", (tmp_path / "mlruns").as_uri())
    assert (experiment, run) == (("experiment", "fasterrcnn"), ("run", "7", tmp_path.name))
    assert first[3] | second[3] == {f"option {i}": str(i) for i in range(130)}
    assert metrics[2] == {"AP/a__b___": (0.5, 4), "map_05": (0.25, 4)}
    assert image == ("image", "r", (12, 8), "f1_curve", 4)
    assert end == ("end", "r")


def test_mlflow_goes_where_its_variables_say(trackers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    MLflow(tmp_path, {})
    import mlflow

    assert mlflow.calls[:2] == [("client", "http://tracker:5000"), ("experiment", "cells")]


@pytest.mark.parametrize(("wandb", "mlflow"), [(True, False), (False, True)])
def test_a_tracker_that_cannot_start_is_one_line(trackers: None, tmp_path: Path, wandb: bool, mlflow: bool) -> None:
    with pytest.raises(UserError, match=r"--wandb: no API key.*wandb login|--mlflow: file:.*API request failed: see"):
        open_loggers(tmp_path, {"fails": "fails"}, first_epoch=0, wandb=wandb, mlflow=mlflow)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(wandb=False, mlflow=False)
    (tmp_path / "mlflow").mkdir()  # a folder of that name is no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("wandb", "mlflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(UserError, match=f"--{name}: .* is not installed: pip install {name}"):
            check_trackers(**{"wandb": False, "mlflow": False, name: True})


class Flaky:
    """A server that is down until told otherwise."""

    def __init__(self) -> None:
        self.is_up, self.got, self.tries = False, [], 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def scalars(self, row: Mapping[str, float], epoch: int) -> None:
        self.may_answer.wait(10)
        self.tries += 1
        if not self.is_up:
            raise ConnectionError("no route")
        self.got.append((epoch, row["map"]))

    def pictures(self, pictures: Mapping[str, bytes], epoch: int) -> None:
        self.got.append((epoch, *pictures))

    def close(self) -> None:
        self.got.append("closed")


def test_a_server_that_was_down_misses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Flaky()
    logger = InBackground("--mlflow", server)
    for epoch in (1, 2):
        logger.scalars({"map": epoch / 10}, epoch)
        logger._finish()
    server.is_up = True
    logger.pictures({"f1_curve": b""}, 3)
    logger.close()
    assert server.got == [(1, 0.1), (2, 0.2), (3, "f1_curve"), "closed"]
    assert [r.message for r in caplog.records] == [
        "--mlflow: cannot be written to (no route): the run goes on, and tries again"
    ]


def test_a_server_that_stays_down_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    server = Flaky()
    logger = InBackground("--mlflow", server)
    for epoch in (1, 2, 3):
        logger.scalars({"map": 0.1}, epoch)
    logger.close()
    assert server.got == ["closed"]
    assert "--mlflow: 3 entries of the log could not be sent" in caplog.text
    assert caplog.text.count("no route") == 1


def test_nobody_waits_for_a_slow_server(caplog: pytest.LogCaptureFixture) -> None:
    server = Flaky()
    server.is_up = True
    server.may_answer.clear()
    logger = InBackground("--wandb", server)
    with caplog.at_level(logging.WARNING):
        for epoch in (1, 2, 3):
            logger.scalars({"map": 0.1}, epoch)
    assert server.tries == 0
    server.may_answer.set()
    logger.close()
    assert [epoch for epoch, _ in server.got[:3]] == [1, 2, 3]
    assert caplog.text == ""
