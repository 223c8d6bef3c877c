"""What a detector found in one image: the one form that metrics, drawing and writers take."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """N boxes of one image, best first. Nobody edits the arrays in place."""

    boxes: np.ndarray  # (N, 4) float32 x1 y1 x2 y2 in original pixels, see utils/labels/boxes.py
    scores: np.ndarray  # (N,) float32, 0..1
    labels: np.ndarray  # (N,) int64, index into the class names

    @classmethod
    def from_output(cls, output: Mapping[str, Any]) -> "Detections":
        """From torchvision's form: a dict of tensors boxes, scores and labels on any device, floats of any kind."""
        boxes, scores = (output[key].float().cpu().numpy() for key in ("boxes", "scores"))
        return cls(boxes, scores, output["labels"].cpu().numpy())

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, keep: np.ndarray) -> "Detections":
        """Those that the mask or the indices name."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    def at_least(self, threshold: float | np.ndarray) -> np.ndarray:
        """(N,) bool: those of at least this score, or (K,) scores by label."""
        return self.scores >= (threshold[self.labels] if isinstance(threshold, np.ndarray) else threshold)

    def filtered(self, threshold: float | np.ndarray = 0.0, classes: Collection[int] | None = None) -> "Detections":
        """Those of at least this score, or (K,) scores by label, and of these classes if any are given."""
        keep = self.at_least(threshold)
        if classes is not None:
            keep &= np.isin(self.labels, list(classes))
        return self.where(keep)

    def relabeled(self, new_labels: np.ndarray) -> "Detections":
        """With label k become new_labels[k]; those whose new label is negative are left out."""
        labels = new_labels[self.labels]
        return Detections(self.boxes, self.scores, labels).where(labels >= 0)
