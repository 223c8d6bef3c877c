"""Detections of one image, the form shared by detectors, metrics, drawing and writers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """N boxes of one image, highest score first. The arrays are never edited in place."""

    boxes: np.ndarray  # (N, 4) float32 x1 y1 x2 y2 in original pixels, see utils/labels/boxes.py
    scores: np.ndarray  # (N,) float32, 0..1
    labels: np.ndarray  # (N,) int64, index into the class names

    @classmethod
    def from_output(cls, output: Mapping[str, Any]) -> "Detections":
        """Convert torchvision's output: a dict of tensors boxes, scores and labels, any device and float type."""
        boxes, scores = (output[key].float().cpu().numpy() for key in ("boxes", "scores"))
        return cls(boxes, scores, output["labels"].cpu().numpy())

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, keep: np.ndarray) -> "Detections":
        """Select detections by mask or by indices."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    def at_least(self, threshold: float | np.ndarray) -> np.ndarray:
        """(N,) bool mask of scores of at least `threshold`, a number or (K,) scores by label."""
        return self.scores >= (threshold[self.labels] if isinstance(threshold, np.ndarray) else threshold)

    def filtered(self, threshold: float | np.ndarray = 0.0, classes: Collection[int] | None = None) -> "Detections":
        """Select scores of at least `threshold`, a number or (K,) scores by label, and these classes (default: all)."""
        keep = self.at_least(threshold)
        if classes is not None:
            keep &= np.isin(self.labels, list(classes))
        return self.where(keep)

    def relabeled(self, new_labels: np.ndarray) -> "Detections":
        """Map label k to new_labels[k]; detections with a negative new label are dropped."""
        labels = new_labels[self.labels]
        return Detections(self.boxes, self.scores, labels).where(labels >= 0)
