"""Plots of an evaluation as PNG: precision, recall and F1 curves, confusion matrix."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from torch_utils.evaluation.coco_eval import RECALLS
from torch_utils.evaluation.detection_analysis import SIZES, THRESHOLDS, DetectionAnalysis
from utils.visualize.plots import figure_png, legend_beside, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLORS = 10  # classes that are all drawn in color; of more only the lowest and the highest
_LOWEST, _HIGHEST = 6, 3
_MOST_NUMBERS = 30  # rows up to which the cells of a confusion matrix have numbers
_MEAN = "#111111"
_SIZE_COLORS = ("#c2570c", "#0b7f5c", "#2563c9")


def pr_curve(analysis: DetectionAnalysis) -> bytes:
    """Precision over recall, by class and by size of the object."""
    figure = new_figure(14.5, 5.4)
    left, right = figure.subplots(1, 2)
    curves = analysis.precision_at_recall
    _lines(left, analysis, RECALLS, curves, curves.mean(1), "AP50")
    left.set(title="by class", xlabel="recall", ylabel="precision")
    for size, curve, boxes, color in zip(
        SIZES, analysis.precision_by_size, analysis.box_counts_by_size, _SIZE_COLORS, strict=True
    ):
        label = f"{curve.mean():.3f}  {size}, {boxes:,} boxes" if boxes else f"   -     {size}, no boxes"
        right.plot(RECALLS, curve, label=label, color=color, lw=2)
    right.set(title="by object size (mean over classes)", xlabel="recall", ylabel="precision")
    legend_beside(right, "AP50")
    return _curves_png(figure)


def f1_curve(analysis: DetectionAnalysis) -> bytes:
    """F1 over the score threshold, with the best threshold."""
    return _score_curve(analysis, analysis.f1, "F1")


def precision_curve(analysis: DetectionAnalysis) -> bytes:
    """Precision over the score threshold."""
    return _score_curve(analysis, analysis.precision, "precision")


def recall_curve(analysis: DetectionAnalysis) -> bytes:
    """Recall over the score threshold."""
    return _score_curve(analysis, analysis.recall, "recall")


def confusion_matrix(analysis: DetectionAnalysis) -> bytes:
    """Confusion matrix: rows are ground truth, columns detections; background last; colors are fractions of a row."""
    from matplotlib.colors import PowerNorm

    counts = np.roll(analysis.confusion, -1, (0, 1))
    sums = counts.sum(1, keepdims=True)
    share = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
    names = [*map(plot_label, analysis.classes), "background"]
    many = len(names) > _MOST_NUMBERS
    side = min(16.0, 3.2 + 0.55 * len(names)) if not many else min(24.0, 4 + 0.15 * len(names))
    figure = new_figure(side + 1.5, side)
    axes = figure.add_subplot()
    norm = PowerNorm(0.5 if many else 1.0, vmin=0, vmax=1)  # without numbers, make small fractions visible
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest")
    size = max(3.0, min(9.0, 72 * (side - 3) / len(names) * 0.8)) if many else 9
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90 if len(names) > 6 else 30, fontsize=size)
    if len(names) <= 6:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(
        xlabel="detected (background: missed)", ylabel="ground truth (background: false positive)",
        title=f"Confusion at score ≥ {analysis.threshold:.3f}, IoU ≥ 0.5",
    )  # fmt: skip
    edges = np.arange(1, len(names)) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="#e4e7ec", lw=0.4 if many else 0.8)
    axes.tick_params(which="minor", length=0)
    if not many:
        for i, j in zip(*np.nonzero(counts), strict=True):
            ink = "white" if share[i, j] > 0.55 else "#1b2330"
            axes.text(j, i, _short(int(counts[i, j])), ha="center", va="center", color=ink, fontsize=8.5)
    figure.colorbar(image, ax=axes, label="fraction of the row", fraction=0.046, pad=0.02)
    return _curves_png(figure)


PLOTS: Mapping[str, Callable[[DetectionAnalysis], bytes]] = {
    "pr_curve.png": pr_curve,
    "f1_curve.png": f1_curve,
    "precision_curve.png": precision_curve,
    "recall_curve.png": recall_curve,
    "confusion_matrix.png": confusion_matrix,
}


def _score_curve(analysis: DetectionAnalysis, curves: np.ndarray, name: str) -> bytes:
    figure = new_figure(8.5, 5.4)
    axes = figure.add_subplot()
    at_best = analysis.at_threshold(curves)
    _lines(axes, analysis, THRESHOLDS, curves, at_best, f"{name} at {analysis.threshold:.3f}")
    axes.axvline(analysis.threshold, color=_MEAN, lw=1, ls="--")
    label = f" best threshold {analysis.threshold:.3f} "
    side = "right" if analysis.threshold > 0.5 else "left"
    axes.text(analysis.threshold, 1.005, label, ha=side, va="bottom", fontsize=9, color=_MEAN)
    axes.set(xlabel="score threshold", ylabel=name)
    return _curves_png(figure)


def _lines(
    axes: "Axes", analysis: DetectionAnalysis, x: np.ndarray, curves: np.ndarray, values: np.ndarray, heading: str
) -> None:
    """Plot the (K, S) curves of the classes and their mean; the legend lists each with its (K,) value."""
    classes = np.flatnonzero(analysis.has_boxes)
    colored = set(classes.tolist())
    if len(classes) > _MOST_COLORS:
        order = classes[np.argsort(np.nan_to_num(values[classes], nan=-1), kind="stable")]
        colored = {*order[:_LOWEST].tolist(), *order[-_HIGHEST:].tolist()}
        for k in classes:
            if k not in colored:
                axes.plot(x, curves[k], color="#9aa4b2", lw=0.7, alpha=0.45)
    if len(classes) != 1:
        mean = np.nanmean(values[classes]) if (~np.isnan(values[classes])).any() else np.nan
        axes.plot(x, analysis.mean(curves), color=_MEAN, lw=3, label=f"{_number(mean)}  mean of {len(classes)} classes")
    for k in sorted(colored, key=lambda k: -np.nan_to_num(values[k], nan=-1)):
        axes.plot(x, curves[k], lw=1.5, label=f"{_number(values[k])}  {plot_label(analysis.classes[k])}")
    note = f"\nlowest {_LOWEST} and highest {_HIGHEST}" if len(colored) < len(classes) else ""
    legend_beside(axes, heading + note)


def _curves_png(figure: "Figure") -> bytes:
    for axes in figure.axes:
        if axes.get_lines():
            axes.set(xlim=(0, 1), ylim=(0, 1.002), aspect="auto")
            axes.grid(alpha=0.3)
    return figure_png(figure)


def _number(value: float) -> str:
    return "   -   " if np.isnan(value) else f"{value:.3f}"


def _short(count: int) -> str:
    """The number, abbreviated to fit into a cell."""
    return str(count) if count < 10_000 else f"{count / 1000:.3g}k"
