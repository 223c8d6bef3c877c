"""Tracks of one frame, the form shared by trackers, drawing, counting, logs and metrics."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tracks:
    """N tracked objects of one frame. The arrays are never edited in place."""

    boxes: np.ndarray  # (N, 4) float32 x1 y1 x2 y2 in original pixels, see utils/labels/boxes.py
    ids: np.ndarray  # (N,) int64 from 1, unique within a frame; an id keeps its label through the video
    labels: np.ndarray  # (N,) int64, index into the class names
    scores: np.ndarray  # (N,) float32, 0..1

    @classmethod
    def none(cls) -> "Tracks":
        """Create the tracks of a frame without objects."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: np.ndarray) -> "Tracks":
        """Select tracks by mask or by indices."""
        return Tracks(self.boxes[keep], self.ids[keep], self.labels[keep], self.scores[keep])

    def bottom_centers(self) -> np.ndarray:
        """Compute (N, 2) float32 x, y of the middle of each box's lower edge, where the object stands on the ground."""
        return np.stack([(self.boxes[:, 0] + self.boxes[:, 2]) / 2, self.boxes[:, 3]], 1)


def pairwise_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute (N, M) float64 intersection over union of (N, 4) and (M, 4) boxes; 0 where both have no area."""
    one, other = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    intersection = np.maximum(sides, 0).prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
