"""Our detectors in SAHI's own functions; test_sliced_detector.py compares what they find."""

from collections.abc import Sequence

import numpy as np
import pytest
from sahi.predict import get_prediction, get_sliced_prediction

from utils.detect.detections import Detections
from utils.detect.detector import Detector, DetectorInfo
from utils.loading.size_rule import SizeRule
from utils.slicing.sahi_model import SahiModel


class Brightest(Detector):
    """Finds the brightest pixel, as large a box as it is bright."""

    def __init__(self) -> None:
        super().__init__(DetectorInfo("brightest", ("__background__", "dark", "bright"), SizeRule(64), "cpu", "none"))
        self.batches: list[int] = []

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def detect(self, prepared: Sequence[np.ndarray]) -> list[Detections]:
        self.batches.append(len(prepared))
        found = []
        for image in prepared:
            y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
            value = image[y, x, 0]
            box = np.array([[x, y, x + 1, y + 1]], np.float32)
            found.append(Detections(box, np.float32([value / 255]), np.array([1 + int(value > 100)])))
        return found


def picture() -> np.ndarray:
    image = np.zeros((20, 40, 3), np.uint8)
    image[3, 5], image[11, 33] = 90, 200
    return image


@pytest.mark.parametrize("batch", [1, 3])
def test_slices(batch: int) -> None:
    detector = Brightest()
    found = get_sliced_prediction(
        picture(), SahiModel(detector), slice_height=20, slice_width=20, overlap_width_ratio=0, overlap_height_ratio=0,
        verbose=0, batch_size=batch,
    ).object_prediction_list  # fmt: skip
    rows = sorted((p.category.id, p.category.name, *p.bbox.to_xyxy()) for p in found)
    assert rows == [(1, "dark", 5, 3, 6, 4), (2, "bright", 33, 11, 34, 12)]
    assert detector.batches == ([2, 1] if batch == 3 else [1, 1, 1])


def test_the_confidence_threshold() -> None:
    model = SahiModel(Brightest(), confidence_threshold=0.9)
    assert get_prediction(picture(), model).object_prediction_list == []
    model.confidence_threshold = 0.7
    (found,) = get_prediction(picture(), model).object_prediction_list
    assert found.score.value == pytest.approx(200 / 255)
