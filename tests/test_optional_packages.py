"""Optional packages: a missing one breaks only the features that need it, in one line that says what to install."""

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch

from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import ROOT
from torch_utils.evaluation.tracking_metrics import score_tracks
from torch_utils.onnx_export import to_onnx
from torch_utils.runs.loggers import open_loggers
from utils.detect.detections import Detections
from utils.detect.interop import to_fiftyone, to_supervision
from utils.detect.onnx_detector import OnnxDetector
from utils.detect.onnx_file import OnnxMetadata, parse_metadata
from utils.errors import MissingPackageError, UserError, requires_package
from utils.loading.size_rule import Canvas
from utils.tracking.tracker import create_tracker
from utils.tracking.tracks import Tracks
from utils.video.av_reader import AvReader
from utils.video.sources import open_video
from utils.video.types import VideoInfo
from utils.video.writers import AvWriter, open_writer

OPTIONAL = (  # modules; none is imported by a script that does not use it
    "av", "deep_sort_realtime", "fiftyone", "mlflow", "numba", "onnx", "onnxruntime", "onnxscript", "onnxslim", "sahi",
    "scipy", "simplejpeg", "supervision", "tensorboard", "timm", "trackers", "wandb",
)  # fmt: skip
SCRIPTS = ("train", "eval", "inference", "inference_video", "sahi_inference", "export", "datasets")
NONE = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
INFO = VideoInfo("a", "a", 64, 64, Fraction(25))


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide a package: importing it fails, as if it were not installed."""

    def hide_package(module: str, *users: str) -> None:
        """Also forget the modules `users`, so that they are imported again."""
        for name in list(sys.modules):
            if any(name == top or name.startswith(f"{top}.") for top in (module, *users)):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

    return hide_package


def onnx_content() -> bytes:
    proto = onnx.ModelProto()
    metadata = OnnxMetadata("x", ("__background__", "red"), Canvas(64, 64), 1, False, None, "1")
    onnx.helper.set_model_props(proto, metadata.to_props())
    return proto.SerializeToString()


def import_sahi_model() -> ModuleType:
    import utils.slicing.sahi_model

    return utils.slicing.sahi_model


CONTENT = onnx_content()
TRACKER = {"threshold": 0.5, "fps": 25.0}


@pytest.mark.parametrize(
    ("module", "use", "message"),
    [
        ("av", lambda: AvReader(Path("a.mp4"), name="a", stem="a"), "needs the package av: pip install av"),
        ("av", lambda: AvWriter(Path("a.mp4"), INFO, "h264"), "needs the package av: pip install av"),
        ("av", lambda: open_video("-"), "standard input needs PyAV: pip install av"),
        ("av", lambda: open_video("rtsp://host/stream"), "rtsp://host/stream needs PyAV: pip install av"),
        ("av", lambda: open_writer("a.mp4", INFO, codec="h264"), "--codec h264 needs PyAV: pip install av"),
        (
            "trackers",
            lambda: create_tracker(**TRACKER),
            "--tracker bytetrack needs the package trackers: pip install tr",
        ),
        (
            "supervision",
            lambda: create_tracker(**TRACKER),
            "needs the package trackers .*supervision.*: pip install tr",
        ),
        (
            "deep_sort_realtime",
            lambda: create_tracker("deepsort", **TRACKER),
            "--tracker deepsort needs the package deep-sort-realtime: pip install deep-sort-realtime, or choose --tr",
        ),
        ("supervision", lambda: to_supervision(NONE, ()), "needs the package supervision: pip install supervision"),
        ("fiftyone", lambda: to_fiftyone(NONE, (), (1, 1)), "needs the package fiftyone: pip install fiftyone"),
        ("onnx", lambda: parse_metadata(b"", Path("a.onnx")), "a.onnx needs the package onnx: pip install onnx"),
        (
            "onnxruntime",
            lambda: OnnxDetector(Path("a.onnx"), torch.device("cpu"), content=CONTENT),
            "a.onnx needs the package onnxruntime: pip install onnxruntime",
        ),
        ("onnx", lambda: to_onnx(None, None), "ONNX export needs the package onnx: pip install onnx"),
        ("onnxscript", lambda: to_onnx(None, None), "ONNX export needs the package onnxscript: pip install onnxscript"),
        ("onnxslim", lambda: to_onnx(None, None), "--simplify needs .* onnxslim: pip install onnxslim, or give --no-s"),
        ("timm", lambda: create_model["timm/resnet18"](2), "needs the package timm: pip install timm"),
    ],
)
def test_a_missing_package_is_one_line_where_it_is_needed(
    module: str, use: Callable[[], object], message: str, hide: Callable[..., None]
) -> None:
    hide(module, "trackers", "utils.tracking.byte_track")
    with pytest.raises((UserError, ModelError), match=message) as error:
        use()
    assert "\n" not in str(error.value)


def test_sahi_is_needed_by_its_adapter_alone(hide: Callable[..., None]) -> None:
    hide("sahi", "utils.slicing.sahi_model")
    with pytest.raises(ImportError, match="SahiModel needs the package sahi: pip install sahi"):
        import_sahi_model()


def test_scipy_is_needed_by_tracking_metrics(hide: Callable[..., None]) -> None:
    hide("scipy")
    one_frame = [[Tracks(np.zeros((1, 4), np.float32), *np.ones((2, 1), np.int64), np.ones(1, np.float32))]]
    with pytest.raises(MissingPackageError, match="score_tracks needs the package scipy: pip install scipy"):
        score_tracks(one_frame, one_frame)


def test_scipy_is_needed_by_deepsort(hide: Callable[..., None]) -> None:
    hide("scipy", "deep_sort_realtime")
    with pytest.raises(MissingPackageError, match=r"deep-sort-realtime .*scipy.*: pip install deep-sort-realtime"):
        create_tracker("deepsort", **TRACKER)


def test_training_continues_without_tensorboard(
    hide: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hide("tensorboard", "torch.utils.tensorboard")
    assert open_loggers(tmp_path, {}, first_epoch=0, wandb=False, mlflow=False) == []
    (record,) = caplog.records
    assert record.getMessage() == (
        "TensorBoard logging needs the package tensorboard: pip install tensorboard; training continues without it"
    )


def test_a_package_that_fails_for_want_of_another_names_both() -> None:
    with pytest.raises(MissingPackageError) as error, requires_package("outer", "--flag", remedy="drop --flag"):
        raise ImportError("No module named 'inner'", name="inner.core")
    expected = "--flag needs the package outer (No module named 'inner'): pip install outer, or drop --flag"
    assert str(error.value) == expected
    assert isinstance(error.value, UserError)


def test_scripts_start_without_any_of_them() -> None:
    code = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None
import {", ".join(SCRIPTS)}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
