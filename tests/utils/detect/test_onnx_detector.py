"""ONNX files as detectors: ours, and those of strangers."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from benchmarks.common.lively import picture
from tests.support.exports import export
from torch_utils.predict import load_detector
from utils.detect.onnx_detector import OnnxDetector
from utils.detect.onnx_file import OnnxMetadata, read_onnx
from utils.errors import UserError
from utils.loading.size_rule import Canvas, SizeRule

CPU = torch.device("cpu")
PROPS = OnnxMetadata("m", ("__background__", "a"), Canvas(64, 96), 1, False, 0.5, "0").to_props()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def changed(ours: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes our file with a change."""

    def change(edit: Callable[[onnx.ModelProto], object]) -> Path:
        proto = onnx.load(ours)
        edit(proto)
        (tmp_path / "changed.onnx").write_bytes(proto.SerializeToString())
        return tmp_path / "changed.onnx"

    return change


@pytest.mark.parametrize("rule", [Canvas(64, 96), Canvas(32, 32, square=True), SizeRule(800), SizeRule(5, 6, True)])
def test_metadata_come_back(rule: Canvas | SizeRule) -> None:
    written = OnnxMetadata("timm/x", ("__background__", "ü"), rule, 4, True, None, "0.1.0", {"ü": 0.25})
    assert OnnxMetadata.from_props(written.to_props(), Path("x")) == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "yolo"}, "its format is 'yolo', not"),
        ({"names": "[1, 2]"}, "invalid names: "),
        ({"names": "[" * 100_000}, "invalid names "),
        ({"names": "no json"}, "invalid names 'no json'"),
        ({"size_rule": '{"height": 64}'}, "invalid size_rule "),
        ({"size_rule": '{"height": 64, "width": 1000000000, "square": false}'}, "invalid size_rule "),
        ({"input": "dynamic"}, "invalid size_rule "),
        ({"batch": "0"}, "invalid batch: "),
        ({"class_thresholds": '{"b": 0.5}'}, "invalid class_thresholds: "),
        ({"best_threshold": "7"}, "invalid best_threshold: "),
    ],
)
def test_metadata_of_strangers(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"^x: .*{message}"):
        OnnxMetadata.from_props({**PROPS, **change}, Path("x"))


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    with pytest.raises(UserError, match="no such ONNX file"):
        read_onnx(file)
    with pytest.raises(UserError, match="not a regular file"):
        read_onnx(tmp_path)
    for content in (b"not a protobuf", b""):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.onnx: (not an ONNX file|not an ONNX file of this pipeline)"):
            read_onnx(file)


def test_a_foreign_graph_and_a_damaged_one(ours: Path, changed, tmp_path: Path) -> None:
    foreign = changed(lambda proto: proto.ClearField("metadata_props"))
    with pytest.raises(UserError, match="it has no format entry"):
        OnnxDetector(foreign, CPU)
    renamed = changed(lambda proto: setattr(proto.graph.node[0], "op_type", "Nonsense"))
    with pytest.raises(UserError, match=r"changed\.onnx: onnxruntime cannot open it"):
        OnnxDetector(renamed, CPU)
    file = tmp_path / "cut.onnx"
    file.write_bytes(ours.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cut\.onnx: "):
        OnnxDetector(file, CPU)


def test_weights_in_other_files_are_not_opened(changed) -> None:
    def outside(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")

    with pytest.raises(UserError, match="stores weights in other files, which are never opened"):
        OnnxDetector(changed(outside), CPU)


def test_metadata_that_contradict_the_graph(changed) -> None:
    def lie(proto: onnx.ModelProto) -> None:
        for entry in proto.metadata_props:
            if entry.key == "size_rule":
                entry.value = json.dumps({"height": 64, "width": 64, "square": False})

    with pytest.raises(UserError, match="inputs and outputs do not match its metadata"):
        OnnxDetector(changed(lie), CPU)

    def fewer(proto: onnx.ModelProto) -> None:
        for entry in proto.metadata_props:
            if entry.key == "names":
                entry.value = json.dumps(["__background__", "red"])

    with pytest.raises(UserError, match="returned labels without a class name"):
        OnnxDetector(changed(fewer), CPU)(picture())


def test_the_size_is_the_graphs(ours: Path) -> None:
    detector = load_detector(ours, device="cpu", imgsz=128)
    assert detector.info.size_rule == Canvas(128, 128)
    assert detector.info.best_threshold == 0.4
    assert load_detector(ours, square=True, device="cpu").info.size_rule == Canvas(128, 128, square=True)
    with pytest.raises(UserError, match="exported for images of 128 x 128 px only"):
        load_detector(ours, imgsz=640, device="cpu")
    with pytest.raises(UserError, match="drop --model"):
        load_detector(ours, "fasterrcnn_nano", device="cpu")


def test_a_gpu_that_onnxruntime_cannot_use_is_told(
    ours: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It falls back to the CPU by itself, with noise on stderr only."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    gpu = torch.device("cuda:0")
    with pytest.raises(UserError, match="cannot use cuda:0 and runs on the CPU: install"):
        OnnxDetector(ours, gpu, require_device=True)
    detector = OnnxDetector(ours, gpu)
    assert "cannot use cuda:0 and runs on the CPU" in caplog.text
    assert detector.info.runs_on == "cpu through onnxruntime's CPUExecutionProvider"


def test_tensorrt_is_used_where_it_is_and_nothing_instead(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Session(onnxruntime.InferenceSession):
        """On the CPU, whatever it is asked for; its providers are `running`."""

        running = "TensorrtExecutionProvider"

        def __init__(self, content: bytes, settings: onnxruntime.SessionOptions, providers: list) -> None:
            asked.append(providers)
            super().__init__(content, settings, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return [self.running]

    known = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    detector = OnnxDetector(ours, torch.device("cuda:1"), tensorrt=True)
    assert detector.info.runs_on == "cuda:1 through onnxruntime's TensorrtExecutionProvider"
    assert asked == [[(known[0], {"device_id": 1}), (known[1], {"device_id": 1}), (known[2], {})]]
    monkeypatch.setattr(Session, "running", "CUDAExecutionProvider")
    with pytest.raises(UserError, match="cannot use TensorRT on cuda:1: install the TensorRT"):
        OnnxDetector(ours, torch.device("cuda:1"), tensorrt=True)
    OnnxDetector(ours, torch.device("cuda:1"))
    assert [provider for provider, _ in asked[-1]] == known[1:], "only where it is asked for"


def test_tensorrt_where_it_cannot_be(ours: Path) -> None:
    with pytest.raises(UserError, match="runs on GPUs, not on cpu: drop --tensorrt"):
        load_detector(ours, device="cpu", tensorrt=True)
    with pytest.raises(UserError, match=r"--tensorrt is for \.onnx files, not for model\.pth: export\.py makes one"):
        load_detector("model.pth", device="cpu", tensorrt=True)
