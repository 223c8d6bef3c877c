"""The example finds what the detector finds, without torch."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.conftest import ROOT
from tests.support.exports import export
from torch_utils.predict import load_detector
from utils.images.image_files import read_image

SCRIPT = ROOT / "examples" / "onnx_minimal.py"
PICTURE = ROOT / "example_test_data" / "image_1.jpg"


@pytest.mark.parametrize("square", [False, pytest.param(True, marks=pytest.mark.full)])
def test_it_finds_what_the_detector_finds(tmp_path: Path, square: bool) -> None:
    file = export(tmp_path, square=square)
    image = read_image(PICTURE)
    expected = load_detector(file, device="cpu")(image)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    detect = runpy.run_path(str(SCRIPT))["detect"]
    boxes, scores, labels = detect(session, image)
    assert len(expected) > 20
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(labels, expected.labels)


def test_it_runs_without_torch(tmp_path: Path) -> None:
    code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = [{str(SCRIPT)!r}, *sys.argv[1:]]; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, export(tmp_path), PICTURE], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    count, first, *_ = done.stdout.splitlines()
    assert count.endswith(" objects with a score of at least 0.3")
    assert first.split()[0] in ("red", "green")


@pytest.mark.parametrize("arguments", [[], ["a.onnx"]])
def test_without_a_picture_it_says_how_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.stderr == "usage: python examples/onnx_minimal.py MODEL.onnx PHOTO\n"
    assert done.returncode == 1
