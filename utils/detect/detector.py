"""Images in, Detections out: the one interface of a detector, whatever runs it."""

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
_SHOWN = 20  # names of classes in a message
_NO_BOXES, _NO_LABELS = np.empty((0, 4), np.float32), np.empty(0, np.int64)


@dataclass(frozen=True)
class DetectorInfo:
    """What there is to know of a detector."""

    name: str  # of the model
    class_names: tuple[str, ...]  # class_names[0] is the background
    size_rule: SizeRule | Canvas
    device: str  # where it runs: cpu, cuda or cuda:N
    source: str  # the file of its weights, or what else they are
    best_threshold: float | None = None  # score at which validation's mean F1 was highest, where the file says so
    class_thresholds: Mapping[str, float | None] | None = None  # where that of each class was; None: it had no boxes
    runtime: str | None = None  # what runs it there, where that is not PyTorch

    @property
    def place(self) -> str:
        """Device and runtime, in words."""
        return f"{self.device} through {self.runtime}" if self.runtime else self.device


class Detector(ABC):
    """A detector that is ready to use.

        detector = load_detector("best_model.pth")  # of torch_utils/predict.py
        detections = detector("photo.jpg", threshold=0.5)

    Work with many images overlaps their preparation, in threads, with the detection of others: `prepare` each image,
    `detect` several that were prepared. Detections of an image do not depend on the others beside it.
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
        """Detections, in original pixels, of one image, or a list of them, one of each image.

        Args:
            images: (H, W, 3) uint8 RGB or a path; or several, of any sizes.
            threshold: the lowest score to keep, see Detections.filtered.
            classes: keep only these labels.

        Raises:
            DataError: a file cannot be read, an array is no image, or threshold or classes are none of this detector.
        """
        self._check(threshold, classes)
        if isinstance(images, (np.ndarray, str, Path)):
            return self([images], threshold=threshold, classes=classes)[0]
        prepared = [self.prepare(_pixels(image)) for image in images]
        return [found.filtered(threshold, classes) for found in self.detect(prepared)] if prepared else []

    def _check(self, threshold: float | np.ndarray, classes: Collection[int] | None) -> None:
        names = self.info.class_names
        if not isinstance(threshold, np.ndarray) and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            best = f"; this detector's best is {self.info.best_threshold:.3f}" if self.info.best_threshold else ""
            raise DataError(f"threshold={threshold!r}: expected a number from 0 to 1, or an array by label{best}")
        for label in () if classes is None else classes:
            if not (isinstance(label, Integral) and 0 <= label < len(names)):
                known = ", ".join(f"{i} {name}" for i, name in enumerate(names[:_SHOWN]))
                more = ", ..." if len(names) > _SHOWN else ""
                raise DataError(f"classes: {label!r} is no label: expected some of {known}{more}")

    @abstractmethod
    def prepare(self, image: np.ndarray) -> Any:
        """What `detect` needs of a (H, W, 3) uint8 RGB image; the thread does not matter."""

    @abstractmethod
    def detect(self, prepared: Sequence[Any]) -> list[Detections]:
        """Detections of prepared images, in original pixels, best first."""


class BatchDetector(Detector):
    """A detector that sees batches of images at their network sizes."""

    def prepare(self, image: np.ndarray) -> Sample:
        """The image at its network size."""
        height, width = image.shape[:2]
        size = self.info.size_rule.network_size(height, width)
        resized = resize(LabeledImage(image, _NO_BOXES, _NO_LABELS), *size)
        return Sample(resized.image, (height, width), 0, resized.boxes, resized.labels)

    def detect(self, prepared: Sequence[Sample]) -> list[Detections]:
        """See Detector; images with one padded size are one batch, so that no image sees another's padding."""
        order = sorted(range(len(prepared)), key=lambda i: _block(prepared[i]))
        found: dict[int, Detections] = {}
        for _, group in groupby(order, key=lambda i: _block(prepared[i])):
            numbers = list(group)
            batch = collate([prepared[i] for i in numbers])
            found |= zip(numbers, self.detect_batch(batch), strict=True)
        return [found[i] for i in range(len(prepared))]

    @abstractmethod
    def detect_batch(self, batch: Batch) -> list[Detections]:
        """Detections of a batch on the host, one of each image, in original pixels."""


def _pixels(image: ImageLike) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"an array of {image.dtype} {image.shape} is no image: expected (height, width, 3) uint8 in the order RGB"
        )
    return image


def _block(sample: Sample) -> tuple[int, int]:
    """Padded height and width."""
    height, width = sample.image.shape[:2]
    return padded(height), padded(width)
