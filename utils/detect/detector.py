"""Common interface of detectors, whichever runtime executes them: images in, Detections out."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from utils.augment.transforms import LabeledImage, resize
from utils.detect.detections import Detections
from utils.errors import DataError
from utils.images.image_files import read_image
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample
from utils.loading.size_rule import Canvas, SizeRule, padded

ImageLike = np.ndarray | str | Path  # (H, W, 3) uint8 RGB, or the path of an image file
_MAX_LISTED = 20  # class names in a message
_NO_BOXES, _NO_LABELS = np.empty((0, 4), np.float32), np.empty(0, np.int64)


@dataclass(frozen=True)
class DetectorInfo:
    """Metadata of a detector."""

    name: str  # model name
    class_names: tuple[str, ...]  # class_names[0] is the background
    size_rule: SizeRule | Canvas
    device: str  # cpu, cuda or cuda:N
    source: str  # weights file, or a description of the weights
    best_threshold: float | None = None  # score of the highest mean F1 in validation, if stored
    class_thresholds: Mapping[str, float | None] | None = None  # the same per class; None: no boxes
    runtime: str | None = None  # None: PyTorch

    @property
    def runs_on(self) -> str:
        """Device and runtime, as text."""
        return f"{self.device} through {self.runtime}" if self.runtime else self.device


class Detector(ABC):
    """Base class of detectors.

        detector = load_detector("best_model.pth")  # of torch_utils/predict.py
        detections = detector("photo.jpg", threshold=0.5)

    To overlap preprocessing with inference, call `prepare` on each image in threads and `detect` on several prepared
    images. The detections of an image do not depend on the other images of its batch.
    """

    def __init__(self, info: DetectorInfo) -> None:
        self.info = info

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        threshold: float | np.ndarray = 0.0,
        classes: Collection[int] | None = None,
    ) -> Any:
        """Detect objects in one image, or in several; return Detections in original pixels, or a list of them.

        Args:
            images: (H, W, 3) uint8 RGB or a path; or a sequence of these, of any sizes.
            threshold: lowest score to keep, see Detections.filtered.
            classes: keep only these labels.

        Raises:
            DataError: a file cannot be read, an array is not an image, threshold is not in 0..1, or a class is unknown.
        """
        self._check(threshold, classes)
        if isinstance(images, (np.ndarray, str, Path)):
            return self([images], threshold=threshold, classes=classes)[0]
        prepared = [self.prepare(_pixels(image)) for image in images]
        return [detections.filtered(threshold, classes) for detections in self.detect(prepared)] if prepared else []

    def _check(self, threshold: float | np.ndarray, classes: Collection[int] | None) -> None:
        names = self.info.class_names
        if not isinstance(threshold, np.ndarray) and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            best = f"; this detector's best is {self.info.best_threshold:.3f}" if self.info.best_threshold else ""
            raise DataError(f"threshold={threshold!r}: expected a number from 0 to 1, or an array by label{best}")
        for label in () if classes is None else classes:
            if not (isinstance(label, Integral) and 0 <= label < len(names)):
                known = ", ".join(f"{i} {name}" for i, name in enumerate(names[:_MAX_LISTED]))
                more = ", ..." if len(names) > _MAX_LISTED else ""
                raise DataError(f"classes: {label!r} is not a label; the labels are {known}{more}")

    @abstractmethod
    def prepare(self, image: np.ndarray) -> Any:
        """Preprocess a (H, W, 3) uint8 RGB image for `detect`. Thread-safe."""

    @abstractmethod
    def detect(self, prepared: Sequence[Any]) -> list[Detections]:
        """Detect objects in prepared images; boxes in original pixels, highest score first."""


class BatchDetector(Detector):
    """A detector that runs on batches of images resized to network size."""

    def prepare(self, image: np.ndarray) -> Sample:
        """Resize the image to network size."""
        height, width = image.shape[:2]
        size = self.info.size_rule.network_size(height, width)
        resized = resize(LabeledImage(image, _NO_BOXES, _NO_LABELS), *size)
        return Sample(resized.image, (height, width), 0, resized.boxes, resized.labels)

    def detect(self, prepared: Sequence[Sample]) -> list[Detections]:
        """See Detector. Images are batched by padded size, so that no image is padded for the sake of another."""
        order = sorted(range(len(prepared)), key=lambda i: _padded_size(prepared[i]))
        detections: dict[int, Detections] = {}
        for _, group in groupby(order, key=lambda i: _padded_size(prepared[i])):
            indices = list(group)
            batch = collate([prepared[i] for i in indices])
            detections |= zip(indices, self.detect_batch(batch), strict=True)
        return [detections[i] for i in range(len(prepared))]

    @abstractmethod
    def detect_batch(self, batch: Batch) -> list[Detections]:
        """Detect objects in a batch on the host; one Detections for each image, in original pixels."""


def _pixels(image: ImageLike) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"an array of {image.dtype} {image.shape} is not an image: expected (height, width, 3) uint8 in RGB order"
        )
    return image


def _padded_size(sample: Sample) -> tuple[int, int]:
    """Height and width after padding."""
    height, width = sample.image.shape[:2]
    return padded(height), padded(width)
