"""The quick layer of the tests reaches every module and every script; the full layer has the rest."""

import ast
import functools
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("models", "torch_utils", "utils", "benchmarks")
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# Modules that no test imports, and the tests that go through them.
THROUGH = {
    "models.backbones.dinov3_detector": "models/backbones/test_dinov3_detector.py",
    "models.backbones.fpn": "models/backbones/test_fpn_variants.py",
    "models.backbones.mini_squeezenet": "models/backbones/test_cnn_backbones.py",
    "models.backbones.mobilenetv3_fpn": "models/rcnn/test_equal_to_torchvision.py",
    "models.rcnn.anchors": "models/rcnn/test_detector.py",
    "models.rcnn.nms_triton": "models/rcnn/test_nms.py",
    "models.rcnn.roi_heads": "models/rcnn/test_detector.py",
    "torch_utils.evaluation.detector_eval": "test_eval.py",
    "torch_utils.evaluation.eval_plots": "torch_utils/evaluation/test_evaluation_files.py",
    "torch_utils.evaluation.eval_report": "torch_utils/evaluation/test_evaluation_files.py",
    "torch_utils.training.epoch_record": "torch_utils/test_engine.py",
    "torch_utils.training.non_finite": "torch_utils/training/test_update.py",
    "utils.cli.checks": "utils/cli/test_options.py",
    "utils.cli.stop_signal": "torch_utils/runs/test_interruption.py",
    "utils.data_tools.report_faults": "utils/data_tools/test_report.py",
    "utils.data_tools.thumbnails": "utils/data_tools/test_report.py",
    "utils.inference.image_inference": "test_inference.py",
    "utils.safe_yaml": "utils/labels/test_data_config.py",
    "utils.tracking.byte_track": "utils/tracking/test_tracker.py",
    "utils.tracking.deep_sort": "utils/tracking/test_tracker.py",
    "utils.tracking.per_class": "utils/tracking/test_tracker.py",
    "utils.video.window": "utils/video/test_pipeline.py",
}
SCRIPTS = (
    "train.py", "eval.py", "inference.py", "inference_video.py", "sahi_inference.py", "export.py", "datasets.py",
    "onnx_inference_image.py", "onnx_inference_video.py", "onnx_video_inference.py",
)  # fmt: skip


def is_quick(function: ast.FunctionDef) -> bool:
    """Whether a test is in the quick layer, at least with some of its parameters."""
    marks = [ast.unparse(decorator) for decorator in function.decorator_list]
    return not {"pytest.mark.full", "pytest.mark.slow"} & set(marks)


def quick_part(path: Path) -> str:
    """The source of a test module without the tests of the other layers; empty if no test remains."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {id(n): n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}
    if not any(map(is_quick, functions.values())):
        return ""
    return "\n".join(ast.unparse(n) for n in tree.body if id(n) not in functions or is_quick(functions[id(n)]))


QUICK = {path.relative_to(ROOT / "tests").as_posix(): quick_part(path) for path in TESTS}


@functools.cache
def imported() -> set[str]:
    """Modules that quick tests import."""
    names = set()
    for text in QUICK.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_has_a_quick_test() -> None:
    """The registry has the files of the models: tests with a model's name go through each of them."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    assert THROUGH.keys() <= modules
    assert [name for name, test in THROUGH.items() if not QUICK[test]] == []
    models = {name for name in modules if name.startswith("models.fasterrcnn_")}
    benchmarks = {name for name in modules if name.startswith("benchmarks.")}  # test_every_benchmark.py imports them
    assert sorted(modules - models - benchmarks - THROUGH.keys() - imported()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_run_by_a_quick_test(script: str) -> None:
    name = script.removesuffix(".py")
    run = [test for test, text in QUICK.items() if test != "test_layers.py" and f"'{script}'" in text]
    called = [test for test in QUICK if name in imported() and test == f"test_{name}.py"]
    assert run or called
