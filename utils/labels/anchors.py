"""Anchors against the boxes of a data set: how well they meet them, and which would meet them better."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.labels.index import LabelIndex
from utils.loading.size_rule import SizeRule

_BOXES = 5000  # that a fit looks at, at most
_STEPS = (0.7, 0.85, 0.93, 1.08, 1.18, 1.4)  # factors that a fit tries on every size and ratio
_ROUNDS = 12  # at most; a round that changes nothing is the last


@dataclass(frozen=True)
class Anchors:
    """Anchor sizes and ratios in network pixels; a test compares them with models/building/builder.py."""

    sizes: tuple[float, ...] = (32, 64, 128, 256, 512)  # px, sqrt(area)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width

    @property
    def small(self) -> float:
        """Boxes below this size meet no anchor well."""
        return self.sizes[0] / 2

    @property
    def large(self) -> float:
        """Boxes above this size meet no anchor well."""
        return self.sizes[-1]

    def best_overlap(self, sides: np.ndarray) -> np.ndarray:
        """(M,) IoU of boxes with the anchor that suits each best, centered on it.

        Args:
            sides: (M, 2) width and height in network pixels.
        """
        centered = np.concatenate([-sides / 2, sides / 2], 1)
        return AnchorGrid(self.sizes, self.ratios, (1,), shared_out=False).best_overlap(centered)


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors as a detector lays them out: around the corners of the cells of its maps.

    shared_out: each map has its share of the sizes, the finest the smallest; otherwise each has all of them.
    """

    sizes: tuple[float, ...]  # px, ascending
    ratios: tuple[float, ...]  # height / width
    strides: tuple[int, ...]  # px, finest first
    shared_out: bool

    def best_overlap(self, boxes: np.ndarray) -> np.ndarray:
        """(M,) IoU of boxes (M, 4), x1 y1 x2 y2 in network pixels, with the anchor that suits each best."""
        centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        areas, best = 4 * halves.prod(1), np.zeros(len(boxes))
        each = len(self.sizes) // len(self.strides) if self.shared_out else 0
        for level, stride in enumerate(self.strides):
            away = np.abs(centers - stride * np.maximum(np.round(centers / stride), 0))  # from the nearest anchor's
            for size in self.sizes[level * each : (level + 1) * each] if each else self.sizes:
                for ratio in self.ratios:
                    half = np.array([size / ratio**0.5, size * ratio**0.5]) / 2
                    shared = np.minimum(away + halves, half) - np.maximum(away - halves, -half)
                    common = shared.clip(0).prod(1)
                    best = np.maximum(best, common / (areas + size * size - common))
        return best

    def recall(self, boxes: np.ndarray, overlap: float) -> float:
        """Share of the boxes that some anchor meets with this IoU or more; 0 for no boxes."""
        return float((self.best_overlap(boxes) >= overlap).mean()) if len(boxes) else 0.0

    def words(self, boxes: np.ndarray) -> str:
        """The anchors and their recall, for the log."""
        sizes, ratios = (" ".join(f"{v:.4g}" for v in values) for values in (self.sizes, self.ratios))
        met = [f"{self.recall(boxes, overlap):.1%} at IoU {overlap}" for overlap in (0.5, 0.7)]
        return f"{sizes} px, height / width {ratios}; they meet {met[0]}, {met[1]} of the training boxes"


def network_boxes(index: LabelIndex, rule: SizeRule) -> np.ndarray:
    """(M, 4) float32: the boxes to train on as the network sees them without augmentation."""
    sizes, which = np.unique(index.sizes, axis=0, return_inverse=True)
    seen = np.array([rule.network_size(*size) for size in sizes.tolist()]).reshape(-1, 2)
    scales = (seen / sizes)[which.reshape(-1), ::-1].astype(np.float32)
    wanted = ~index.ignored
    return index.boxes[wanted] * np.tile(scales[index.image_of_box()[wanted]], 2)


def fit(start: AnchorGrid, boxes: np.ndarray) -> AnchorGrid:
    """As many sizes and ratios as `start` has, chosen for the highest mean IoU of boxes and their best anchors.

    A local search, from quantiles of the boxes and from `start` itself; it has no chance in it.
    """
    some = boxes[:: -(-len(boxes) // _BOXES)] if len(boxes) else boxes
    sides = some[:, 2:] - some[:, :2]
    if not len(sides):
        return start
    guess = replace(
        start,
        sizes=_quantiles(np.sqrt(sides.prod(1)), len(start.sizes)),
        ratios=_quantiles(sides[:, 1] / sides[:, 0], len(start.ratios)),
    )
    return max((_improved(grid, some) for grid in (start, guess)), key=lambda grid: grid.best_overlap(some).mean())


def _quantiles(values: np.ndarray, count: int) -> tuple[float, ...]:
    """`count` values ascending, each in the middle of as many of the given ones; strictly apart."""
    found = np.quantile(values, (np.arange(count) + 0.5) / count)
    return tuple((found * 1.001 ** np.arange(count)).tolist())


def _improved(grid: AnchorGrid, boxes: np.ndarray) -> AnchorGrid:
    best, score = grid, grid.best_overlap(boxes).mean()
    for _ in range(_ROUNDS):
        before = score
        for name in ("sizes", "ratios"):
            for i in range(len(getattr(grid, name))):
                for trial in _neighbors(best, name, i):
                    if (found := trial.best_overlap(boxes).mean()) > score:
                        best, score = trial, found
        if score == before:
            break
    return replace(best, sizes=_rounded(best.sizes), ratios=_rounded(best.ratios))


def _neighbors(grid: AnchorGrid, name: str, i: int) -> list[AnchorGrid]:
    values = getattr(grid, name)
    changed = ((*values[:i], values[i] * factor, *values[i + 1 :]) for factor in _STEPS)
    return [replace(grid, **{name: tuple(sorted(trial))}) for trial in changed]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
