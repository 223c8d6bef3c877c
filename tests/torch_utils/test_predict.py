"""Detectors from Python, as docs/python.md shows them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.create_fasterrcnn_model import OpenedDetector
from models.rcnn.cuda_graphs import GraphedDetector
from models.rcnn.detector import FasterRCNN
from tests.conftest import CLASSES, squares
from tests.support.checkpoints import CONFIDENT, write_checkpoint
from torch_utils import predict
from torch_utils.predict import load_detector, resolve_size_rule
from utils.detect.detections import Detections
from utils.errors import DataError
from utils.images.image_files import write_image
from utils.loading.size_rule import SizeRule


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.pth", **CONFIDENT)


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [squares(np.random.default_rng(i), *size, 3)[0] for i, size in enumerate(sizes)]


def assert_equal(one: Detections, other: Detections) -> None:
    for key in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))


def test_a_path_and_its_pixels_give_the_same(weights: Path, tmp_path: Path) -> None:
    detector = load_detector(weights, device="cpu")
    (image,) = images((120, 90))
    write_image(tmp_path / "a.png", image)
    found = detector(image, threshold=0.3)
    assert len(found) > 0
    assert found.scores.min() >= 0.3
    assert_equal(found, detector(tmp_path / "a.png", threshold=0.3))
    assert_equal(found, detector([str(tmp_path / "a.png")], threshold=0.3)[0])
    assert detector.info.class_names == tuple(CLASSES)
    assert detector.info.size_rule == SizeRule(96)
    assert detector.info.device == "cpu"


def test_what_is_found_does_not_depend_on_the_images_beside(weights: Path) -> None:
    """Of several sizes, in any order: one with another padding is in another batch."""
    detector = load_detector(weights, device="cpu")
    several = images((120, 90), (60, 200), (121, 90), (90, 120))
    together = detector(several)
    for image, found in zip(several, together, strict=True):
        alone = detector(image)
        assert len(alone) == len(found)
        np.testing.assert_allclose(alone.boxes, found.boxes, atol=1e-3)
    assert detector([]) == []


def test_classes_are_chosen(weights: Path) -> None:
    found = load_detector(weights, device="cpu")(images((120, 90))[0], classes=[2])
    assert set(found.labels.tolist()) == {2}


@pytest.mark.parametrize(
    ("device", "cuda_graphs", "expected"),
    [("cuda:0", True, GraphedDetector), ("cuda:0", False, type(None)), ("cpu", True, type(None))],
)
def test_graphs_are_for_gpus(
    weights: Path, monkeypatch: pytest.MonkeyPatch, device: str, cuda_graphs: bool, expected: type
) -> None:
    monkeypatch.setattr(predict, "pick_device", lambda _: torch.device(device))
    monkeypatch.setattr(predict, "TorchDetector", lambda model, info, device, *, detect: detect)
    monkeypatch.setattr(FasterRCNN, "to_device", lambda model, device: model)
    assert type(load_detector(weights, cuda_graphs=cuda_graphs)) is expected


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_images(weights: Path, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="is not an image: expected"):
        load_detector(weights, device="cpu")(image)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"threshold": 5}, "threshold=5: expected a number from 0 to 1, or an array by label"),
        ({"threshold": "best"}, "threshold='best': expected a number"),
        ({"classes": ["red"]}, "classes: 'red' is not a label; the labels are 0 __background__, 1 red, 2 green"),
        ({"classes": [9]}, "classes: 9 is not a label"),
    ],
)
def test_wishes_that_nothing_could_fulfil(weights: Path, wishes: dict, message: str) -> None:
    """They gave no detections, or an error of numpy."""
    with pytest.raises(DataError, match=re.escape(message)):
        load_detector(weights, device="cpu")(np.zeros((4, 4, 3), np.uint8), **wishes)


@pytest.mark.parametrize(
    ("imgsz", "square", "expected"),
    [
        (None, False, SizeRule(320, square=True)),
        (None, True, SizeRule(320, square=True)),
        (500, False, SizeRule(500)),
        (500, True, SizeRule(500, square=True)),
    ],
)
def test_imgsz_overrides_the_size_of_training(imgsz, square, expected) -> None:
    opened = OpenedDetector(torch.nn.Identity(), "x", ("a", "b"), SizeRule(320, square=True).as_dict(), True)
    assert resolve_size_rule(opened, None, imgsz=imgsz, square=square) == expected
