"""Detection slice by slice: what SAHI finds with the same detector, one slice after the other."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.create_fasterrcnn_model import create_model
from tests.conftest import CLASSES, ROOT, full_among, squares
from utils.cli.flags import parse_options
from utils.cli.options import SliceOptions
from utils.detect.detections import Detections
from utils.detect.detector import Detector, DetectorInfo
from utils.detect.torch_detector import TorchDetector
from utils.errors import UserError
from utils.images.image_files import read_image, write_image
from utils.loading.size_rule import SizeRule
from utils.slicing.grid import Slices
from utils.slicing.merging import Merging
from utils.slicing.sliced_detector import SlicedDetector, slice_detector

KINDS = ("GREEDYNMM", "NMM", "NMS")
SLICES = Slices(70, 90, 0.2, 0.3)


def info(size: int = 96) -> DetectorInfo:
    return DetectorInfo("test", tuple(CLASSES), SizeRule(size), "cpu", "random weights")


@pytest.fixture(scope="module")
def detector() -> TorchDetector:
    """Of random weights, that finds many boxes."""
    torch.manual_seed(0)
    model = create_model["fasterrcnn_nano"](len(CLASSES), pretrained=False)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 1.0, 0.9]))
        model.roi_heads.box_predictor.cls_score.weight.mul_(20)
    return TorchDetector(model, info(), torch.device("cpu"))


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return squares(np.random.default_rng(seed), height, width, 12)[0]


def sahis(detector: Detector, picture: Any, slices: Slices, threshold: float, **wishes: Any) -> Detections:
    """SAHI's own run, slice after slice, best first."""
    from sahi.postprocess.backends import set_postprocess_backend
    from sahi.predict import get_sliced_prediction

    from utils.slicing.sahi_model import SahiModel

    set_postprocess_backend("numpy")
    found = get_sliced_prediction(
        picture,
        SahiModel(detector, confidence_threshold=threshold),
        slice_height=slices.height,
        slice_width=slices.width,
        overlap_height_ratio=slices.overlap_height,
        overlap_width_ratio=slices.overlap_width,
        verbose=0,
        **wishes,
    ).object_prediction_list
    return Detections(
        np.array([p.bbox.to_xyxy() for p in found], np.float32).reshape(-1, 4),
        np.array([p.score.value for p in found], np.float32),
        np.array([p.category.id for p in found], np.int64),
    )


def in_order(found: Detections) -> Detections:
    return found.where(np.lexsort((*found.boxes.T, found.labels, -found.scores)))


def assert_equal(one: Detections, other: Detections) -> None:
    for key in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(in_order(one), key), getattr(in_order(other), key))


OTHER_SIZES = ((60, 200), (60, 80), (71, 91))


@pytest.mark.parametrize("size", [(150, 210), *full_among(OTHER_SIZES, OTHER_SIZES)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_detections_are_sahis(detector: TorchDetector, size: tuple[int, int], kind: str) -> None:
    found = SlicedDetector(detector, SLICES, Merging(kind), batch=1)(image(*size), threshold=0.55)
    assert len(found) > 0
    assert (np.diff(found.scores) <= 0).all()
    assert_equal(found, sahis(detector, image(*size), SLICES, 0.55, postprocess_type=kind))


@pytest.mark.parametrize(
    ("merging", "whole_image", "wishes"),
    [
        (Merging(metric="IOU", threshold=0.2), True, {"match_metric": "IOU", "match_threshold": 0.2}),
        (Merging(class_agnostic=True), True, {"class_agnostic": True}),
        (Merging(), False, {}),
    ],
)
def test_the_detections_are_sahis_with_its_switches(
    detector: TorchDetector, merging: Merging, whole_image: bool, wishes: dict[str, Any]
) -> None:
    picture = image(150, 210)
    ours = SlicedDetector(detector, SLICES, merging, whole_image=whole_image, batch=1)(picture, threshold=0.5)
    wishes = {f"postprocess_{key}": value for key, value in wishes.items()}
    assert_equal(ours, sahis(detector, picture, SLICES, 0.5, perform_standard_pred=whole_image, **wishes))


@pytest.mark.full
def test_low_scores_suppress_and_do_not_enlarge(detector: TorchDetector) -> None:
    """SAHI's switch to NMS with IOU below 0.1."""
    picture, slicing = image(150, 210), SlicedDetector(detector, SLICES, batch=1)
    assert_equal(slicing(picture, threshold=0.08), sahis(detector, picture, SLICES, 0.08))
    forced = SlicedDetector(detector, SLICES, Merging(), batch=1)(picture, threshold=0.08)
    assert_equal(forced, sahis(detector, picture, SLICES, 0.08, force_postprocess_type=True))
    assert len(forced) < len(slicing(picture, threshold=0.08))


def test_classes_are_chosen_before_the_merging(detector: TorchDetector) -> None:
    """Equal to SAHI; the predecessor ignored --classes here."""
    picture, agnostic = image(150, 210), Merging(class_agnostic=True)
    found = SlicedDetector(detector, SLICES, agnostic, batch=1)(picture, threshold=0.5, classes=[2])
    assert set(found.labels.tolist()) == {2}
    wishes = {"postprocess_class_agnostic": True, "exclude_classes_by_id": [1]}
    assert_equal(found, sahis(detector, picture, SLICES, 0.5, **wishes))
    assert_equal(
        found, SlicedDetector(detector, SLICES, agnostic, threshold=0.5, classes=[2], batch=1)(picture, classes=[1, 2])
    )


def test_the_detections_are_sahis_in_a_file(detector: TorchDetector, tmp_path: Path) -> None:
    picture = read_image(ROOT / "example_test_data" / "image_1.jpg")[:500, :600]
    write_image(tmp_path / "a.png", picture)
    ours = SlicedDetector(detector, Slices(256, 256), batch=1)(tmp_path / "a.png", threshold=0.55)
    assert_equal(ours, sahis(detector, str(tmp_path / "a.png"), Slices(256, 256), 0.55))


@pytest.mark.full
def test_batches_and_images_beside_change_nothing_but_the_last_digits(detector: TorchDetector) -> None:
    pictures = [image(150, 210), image(60, 80, 1), image(200, 100, 2)]
    alone = [SlicedDetector(detector, SLICES, batch=1)(picture, threshold=0.55) for picture in pictures]
    together = SlicedDetector(detector, SLICES, batch=5)(pictures, threshold=0.55)
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


class Recorder(Detector):
    """Finds nothing; remembers how many images it was given, and how many were prepared before they were asked for."""

    def __init__(self) -> None:
        super().__init__(info())
        self.batches: list[int] = []
        self.most_waiting = self.prepared = 0

    def prepare(self, image: np.ndarray) -> tuple[int, ...]:
        self.prepared += 1
        self.most_waiting = max(self.most_waiting, self.prepared - sum(self.batches))
        return image.shape

    def detect(self, prepared: Sequence[tuple[int, ...]]) -> list[Detections]:
        self.batches.append(len(prepared))
        nothing = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
        return [nothing] * len(prepared)


def test_slices_of_all_images_share_batches_and_few_are_in_memory() -> None:
    inner = Recorder()
    found = SlicedDetector(inner, Slices(10, 10, 0, 0), batch=8)([np.zeros((100, 100, 3), np.uint8)] * 2)
    assert [len(f) for f in found] == [0, 0]
    assert inner.batches == [8] * 25 + [2]  # 2 x (100 slices and the whole)
    assert inner.most_waiting <= 4 * 8
    assert SlicedDetector(inner)([]) == []


def test_an_image_of_one_slice_is_seen_once() -> None:
    inner = Recorder()
    SlicedDetector(inner, Slices(64, 64))(np.zeros((64, 50, 3), np.uint8))
    assert inner.batches == [1]


@pytest.mark.parametrize(
    ("words", "threshold", "expected"),
    [
        ([], 0.3, Merging("GREEDYNMM", "IOS")),
        ([], 0.05, Merging("NMS", "IOU")),
        (["--postprocess-type", "NMM"], 0.05, Merging("NMM", "IOS")),
        (["--match-metric", "IOS"], 0.05, Merging("NMS", "IOS")),
        (["--match-threshold", "0.7", "--class-agnostic"], 0.3, Merging("GREEDYNMM", "IOS", 0.7, True)),
    ],
)
def test_flags_say_what_is_merged(words: list[str], threshold: float, expected: Merging, caplog) -> None:
    caplog.set_level(logging.INFO)
    options = parse_options(SliceOptions, "", words)
    assert slice_detector(Recorder(), options, threshold=threshold).merging == expected
    assert str(expected) in caplog.text


def test_flags_say_how_to_slice(caplog) -> None:
    caplog.set_level(logging.INFO)
    words = ["--slice-height", "30", "--slice-width", "40", "--overlap-height-ratio", "0", "--overlap-width-ratio",
             "0.5", "--no-standard-pred"]  # fmt: skip
    slicing = slice_detector(Recorder(), parse_options(SliceOptions, "", words), batch=3)
    assert slicing.slices == Slices(30, 40, 0.0, 0.5)
    assert (slicing.whole_image, slicing.batch) == (False, 3)
    assert "Slices of 40 x 30 px, overlapping by 0 of the height and 0.5 of the width, each at 96 px" in caplog.text


def test_an_image_of_too_many_slices_is_refused() -> None:
    with pytest.raises(UserError, match="slices of 1 x 1 px"):
        SlicedDetector(Recorder(), Slices(1, 1))(np.zeros((200, 200, 3), np.uint8))
