"""Who is where in one frame of a video: the form that trackers give and drawing, counting, logs and measures take."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tracks:
    """N tracked objects of one frame. Nobody edits the arrays in place."""

    boxes: np.ndarray  # (N, 4) float32 x1 y1 x2 y2 in original pixels, see utils/labels/boxes.py
    ids: np.ndarray  # (N,) int64 from 1, each once in a frame; an id keeps its label through the video
    labels: np.ndarray  # (N,) int64, index into the class names
    scores: np.ndarray  # (N,) float32, 0..1

    @classmethod
    def none(cls) -> "Tracks":
        """A frame without any."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: np.ndarray) -> "Tracks":
        """Those that the mask or the indices name."""
        return Tracks(self.boxes[keep], self.ids[keep], self.labels[keep], self.scores[keep])

    def feet(self) -> np.ndarray:
        """(N, 2) float32 x, y of the middle of each box's lower edge: where it stands on the ground."""
        return np.stack([(self.boxes[:, 0] + self.boxes[:, 2]) / 2, self.boxes[:, 3]], 1)


def pairwise_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) float64 intersection over union of (N, 4) and (M, 4) boxes; 0 where both have no area."""
    one, other = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
