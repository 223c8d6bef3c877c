"""Adapter that runs our detectors in SAHI's own functions (https://github.com/obss/sahi).

    from sahi.predict import get_sliced_prediction

    model = SahiModel(load_detector("best_model.pth"), confidence_threshold=0.5)
    result = get_sliced_prediction("harbour.jpg", model, slice_height=512, slice_width=512)

SlicedDetector of utils/slicing/sliced_detector.py returns the same detections, faster, and does not need SAHI.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.detect.detections import Detections
from utils.detect.detector import Detector
from utils.errors import requires_package

with requires_package("sahi", "SahiModel"):
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction


class SahiModel(DetectionModel):
    """A Detector as SAHI's DetectionModel: slices are resized by the detector's size rule.

    Args:
        detector: any Detector; it stays on its device.
        confidence_threshold: detections with a higher score are returned.
    """

    def __init__(self, detector: Detector, *, confidence_threshold: float = 0.3) -> None:
        names = {str(label): name for label, name in enumerate(detector.info.class_names)}
        super().__init__(
            model=detector, device="cpu", confidence_threshold=confidence_threshold, category_mapping=names
        )

    def set_model(self, model: Detector) -> None:
        """Set the detector."""
        self.model = model

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect in a (H, W, 3) uint8 RGB image."""
        self._original_predictions = [self.model(image)]

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Detect in several images, in one batch where their sizes allow it."""
        self._batch_images = None
        self._original_predictions = self.model(images)

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Sequence[Any] | None = None,
        full_shape_list: Sequence[Any] | None = None,
    ) -> None:
        count = len(self._original_predictions)
        shifts, shapes = _each(shift_amount_list or [0, 0], count), _each(full_shape_list, count)
        self._object_prediction_list_per_image = [
            self._predictions(detections, shift, shape)
            for detections, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
        ]

    def _predictions(
        self, detections: Detections, shift: Sequence[int], shape: Sequence[int] | None
    ) -> list[ObjectPrediction]:
        detections = detections.where(detections.scores > self.confidence_threshold)
        return [
            ObjectPrediction(
                bbox=box,
                category_id=label,
                category_name=self.category_mapping[str(label)],
                score=score,
                shift_amount=list(shift),
                full_shape=shape,
            )
            for box, label, score in zip(
                detections.boxes.tolist(), detections.labels.tolist(), detections.scores, strict=True
            )
        ]


def _each(value: Sequence[Any] | None, count: int) -> Sequence[Any]:
    """Repeat the value for each image where SAHI gives one for all."""
    if value is None or np.ndim(value) == 1:
        return [value] * count
    return value
