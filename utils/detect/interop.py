"""Conversion of Detections to the types of other libraries, each imported on demand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.detect.detections import Detections
from utils.errors import requires_package

if TYPE_CHECKING:
    import fiftyone
    import supervision
    from torch import Tensor


def to_torchvision(detections: Detections) -> "dict[str, Tensor]":
    """Convert to torchvision's output: boxes (N, 4) float32 x1 y1 x2 y2, scores (N,) float32, labels (N,) int64."""
    import torch

    return {key: torch.from_numpy(getattr(detections, key).copy()) for key in ("boxes", "scores", "labels")}


def to_supervision(detections: Detections, class_names: Sequence[str]) -> "supervision.Detections":
    """Convert to supervision's Detections, with class_name in their data (https://supervision.roboflow.com).

    Raises:
        MissingPackageError: supervision is not installed.
    """
    import numpy as np

    with requires_package("supervision", "to_supervision"):
        import supervision

    return supervision.Detections(
        xyxy=detections.boxes.copy(),
        confidence=detections.scores.copy(),
        class_id=detections.labels.copy(),
        data={"class_name": np.array([class_names[label] for label in detections.labels], dtype=str)},
    )


def to_fiftyone(
    detections: Detections, class_names: Sequence[str], size: tuple[int, int]
) -> "fiftyone.core.labels.Detections":
    """Convert to FiftyOne's Detections, with boxes [x, y, width, height] as fractions of the image.

    Args:
        size: height and width of the image.

    Raises:
        MissingPackageError: FiftyOne is not installed.
    """
    labels = _fiftyone_labels()
    height, width = size
    converted = []
    for (x1, y1, x2, y2), score, label in zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        converted.append(labels.Detection(label=class_names[label], bounding_box=box, confidence=score))
    return labels.Detections(detections=converted)


def _fiftyone_labels() -> Any:
    with requires_package("fiftyone", "to_fiftyone"):
        import fiftyone.core.labels
    return fiftyone.core.labels
