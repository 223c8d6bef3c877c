"""The code of docs/python.md, run as it stands."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import ROOT, squares
from tests.support.checkpoints import CONFIDENT, write_checkpoint
from utils.detect import interop
from utils.images.image_files import write_image


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "outputs/training/demo/best_model.pth", **CONFIDENT)
    image, _, _ = squares(np.random.default_rng(0), 90, 120, 2)
    first = tmp_path / "data/demo/valid/images/valid_000.jpg"
    first.parent.mkdir(parents=True)
    for path in (first, tmp_path / "a.jpg", tmp_path / "b.jpg"):
        write_image(path, image)
    if importlib.util.find_spec("fiftyone") is None:
        theirs = SimpleNamespace(Detection=SimpleNamespace, Detections=SimpleNamespace)
        monkeypatch.setattr(interop, "_fiftyone_labels", lambda: theirs)
    values: dict = {"image": image}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL):
        exec(block, values)
    assert len(values["detections"]) > 0
    assert values["detections"].scores.min() >= 0.5
    assert len(values["several"]) == 2
    assert (tmp_path / "drawn.jpg").is_file()
    assert values["model"].training is False
