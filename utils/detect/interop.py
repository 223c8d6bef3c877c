"""Detections in the forms of other libraries, each imported where it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.detect.detections import Detections
from utils.errors import UserError

if TYPE_CHECKING:
    import fiftyone
    import supervision
    from torch import Tensor


def to_torchvision(detections: Detections) -> "dict[str, Tensor]":
    """What torchvision's detectors return: boxes (N, 4) float32 x1 y1 x2 y2, scores (N,) float32, labels (N,) int64."""
    import torch

    return {key: torch.from_numpy(getattr(detections, key).copy()) for key in ("boxes", "scores", "labels")}


def to_supervision(detections: Detections, class_names: Sequence[str]) -> "supervision.Detections":
    """supervision's Detections, with class_name among their data (https://supervision.roboflow.com)."""
    import numpy as np
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
    """FiftyOne's Detections, whose boxes are [x, y, width, height] in fractions of the image.

    Args:
        size: height and width of the image.

    Raises:
        UserError: FiftyOne is not installed.
    """
    labels = _fiftyone_labels()
    height, width = size
    found = []
    for (x1, y1, x2, y2), score, label in zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        found.append(labels.Detection(label=class_names[label], bounding_box=box, confidence=score))
    return labels.Detections(detections=found)


def _fiftyone_labels() -> Any:
    try:
        import fiftyone.core.labels
    except ImportError:
        raise UserError("FiftyOne is not installed: pip install fiftyone") from None
    return fiftyone.core.labels
