"""Compare anchors with the boxes of a data set, and fit anchor sizes and ratios to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.labels.index import LabelIndex

_MAX_BOXES = 5000  # that a fit uses
_FACTORS = (0.7, 0.85, 0.93, 1.08, 1.18, 1.4)  # that a fit tries on every size and ratio
_MAX_ROUNDS = 12  # a round without a change is the last


@dataclass(frozen=True)
class Anchors:
    """Anchor sizes and ratios in network pixels; a test compares them with models/building/builder.py."""

    sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # px, sqrt(area)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width

    @property
    def small(self) -> float:
        """Size in px below which no anchor matches a box well."""
        return self.sizes[0] / 2

    @property
    def large(self) -> float:
        """Size in px above which no anchor matches a box well."""
        return self.sizes[-1]

    def best_iou(self, sides: np.ndarray) -> np.ndarray:
        """(M,) IoU of boxes with the best anchor, both centered at the same point.

        Args:
            sides: (M, 2) width and height in network pixels.
        """
        centered = np.concatenate([-sides / 2, sides / 2], 1)
        return AnchorGrid(self.sizes, self.ratios, (1,), split_by_level=False).best_iou(centered)


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors as a detector places them: centered at the corners of the cells of its feature maps.

    With `split_by_level` each map has its share of the sizes, the finest map the smallest; otherwise each map has all.
    """

    sizes: tuple[float, ...]  # px, ascending
    ratios: tuple[float, ...]  # height / width
    strides: tuple[int, ...]  # px, finest first
    split_by_level: bool

    def best_iou(self, boxes: np.ndarray) -> np.ndarray:
        """(M,) IoU of boxes (M, 4), x1 y1 x2 y2 in network pixels, with the best anchor."""
        centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        areas, best = 4 * halves.prod(1), np.zeros(len(boxes))
        each = len(self.sizes) // len(self.strides) if self.split_by_level else 0
        for level, stride in enumerate(self.strides):
            nearest = stride * np.maximum(np.round(centers / stride), 0)  # anchor centers
            away = np.abs(centers - nearest)
            for size in self.sizes[level * each : (level + 1) * each] if each else self.sizes:
                for ratio in self.ratios:
                    half = np.array([size / ratio**0.5, size * ratio**0.5]) / 2
                    shared = np.minimum(away + halves, half) - np.maximum(away - halves, -half)
                    common = shared.clip(0).prod(1)
                    best = np.maximum(best, common / (areas + size * size - common))
        return best

    def recall(self, boxes: np.ndarray, overlap: float) -> float:
        """Share of the boxes that overlap an anchor with at least this IoU; 0 for no boxes."""
        return float((self.best_iou(boxes) >= overlap).mean()) if len(boxes) else 0.0

    def summary(self, boxes: np.ndarray) -> str:
        """Describe the anchors and their recall, for the log."""
        sizes, ratios = (" ".join(f"{v:.4g}" for v in values) for values in (self.sizes, self.ratios))
        met = [f"{self.recall(boxes, overlap):.1%} at IoU {overlap}" for overlap in (0.5, 0.7)]
        return f"{sizes} px, height / width {ratios}; they meet {met[0]}, {met[1]} of the training boxes"


def network_boxes(index: LabelIndex, network_size: Callable[[int, int], tuple[int, int]]) -> np.ndarray:
    """(M, 4) float32 boxes to train on, in network pixels, without augmentation.

    Args:
        network_size: height and width of an image -> those that the network sees, as SizeRule.network_size.
    """
    sizes, which = np.unique(index.sizes, axis=0, return_inverse=True)
    seen = np.array([network_size(*size) for size in sizes.tolist()]).reshape(-1, 2)
    scales = (seen / sizes)[which.reshape(-1), ::-1].astype(np.float32)
    used = ~index.ignored
    return index.boxes[used] * np.tile(scales[index.image_of_box()[used]], 2)


def fit_grid(start: AnchorGrid, boxes: np.ndarray) -> AnchorGrid:
    """Fit as many sizes and ratios as `start` has, for the highest mean IoU of boxes (M, 4) with their best anchors.

    A deterministic local search that starts from quantiles of the boxes and from `start` itself.
    """
    some = boxes[:: -(-len(boxes) // _MAX_BOXES)] if len(boxes) else boxes
    sides = some[:, 2:] - some[:, :2]
    if not len(sides):
        return start
    guess = replace(
        start,
        sizes=_quantiles(np.sqrt(sides.prod(1)), len(start.sizes)),
        ratios=_quantiles(sides[:, 1] / sides[:, 0], len(start.ratios)),
    )
    return max((_improved(grid, some) for grid in (start, guess)), key=lambda grid: grid.best_iou(some).mean())


def _quantiles(values: np.ndarray, count: int) -> tuple[float, ...]:
    """`count` strictly ascending quantiles, each the middle of an equal share of the values."""
    quantiles = np.quantile(values, (np.arange(count) + 0.5) / count)
    return tuple((quantiles * 1.001 ** np.arange(count)).tolist())


def _improved(grid: AnchorGrid, boxes: np.ndarray) -> AnchorGrid:
    best, score = grid, grid.best_iou(boxes).mean()
    for _ in range(_MAX_ROUNDS):
        before = score
        for name in ("sizes", "ratios"):
            for i in range(len(getattr(grid, name))):
                for trial in _neighbors(best, name, i):
                    if (trial_score := trial.best_iou(boxes).mean()) > score:
                        best, score = trial, trial_score
        if score == before:
            break
    return replace(best, sizes=_rounded(best.sizes), ratios=_rounded(best.ratios))


def _neighbors(grid: AnchorGrid, name: str, i: int) -> list[AnchorGrid]:
    values = getattr(grid, name)
    changed = ((*values[:i], values[i] * factor, *values[i + 1 :]) for factor in _FACTORS)
    return [replace(grid, **{name: tuple(sorted(trial))}) for trial in changed]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
