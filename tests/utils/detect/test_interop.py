import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from utils.detect.detections import Detections
from utils.detect.interop import to_fiftyone, to_supervision, to_torchvision
from utils.errors import UserError

NAMES = ("__background__", "red", "green")
BOXES = np.array([[10, 20, 30, 60], [0, 0, 100, 50]], np.float32)
FOUND = Detections(BOXES, np.array([0.75, 0.5], np.float32), np.array([2, 1]))
NOTHING = FOUND.filtered(0.9)


def test_torchvision() -> None:
    output = to_torchvision(FOUND)
    assert {key: value.dtype for key, value in output.items()} == {
        "boxes": torch.float32, "scores": torch.float32, "labels": torch.int64,
    }  # fmt: skip
    back = Detections.from_output(output)
    np.testing.assert_array_equal(back.boxes, FOUND.boxes)
    output["boxes"].zero_()
    assert FOUND.boxes.any()
    assert to_torchvision(NOTHING)["boxes"].shape == (0, 4)


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    theirs = to_supervision(FOUND, NAMES)
    assert isinstance(theirs, supervision.Detections)
    np.testing.assert_array_equal(theirs.xyxy, BOXES)
    assert theirs["class_name"].tolist() == ["green", "red"]
    assert theirs.class_id.tolist() == [2, 1]
    np.testing.assert_allclose(theirs.area, [800, 5000])
    assert len(to_supervision(NOTHING, NAMES)) == 0


def test_fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its two classes stood in for by plain records, where it is not installed."""
    if "fiftyone" not in sys.modules:
        labels = ModuleType("fiftyone.core.labels")
        labels.Detection = labels.Detections = SimpleNamespace
        core, top = ModuleType("fiftyone.core"), ModuleType("fiftyone")
        core.labels, top.core = labels, core
        for module in (top, core, labels):
            monkeypatch.setitem(sys.modules, module.__name__, module)
    theirs = to_fiftyone(FOUND, NAMES, (200, 100)).detections
    assert [one.label for one in theirs] == ["green", "red"]
    assert theirs[0].bounding_box == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert theirs[1].confidence == 0.5


def test_fiftyone_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(UserError, match="pip install fiftyone"):
        to_fiftyone(FOUND, NAMES, (200, 100))
