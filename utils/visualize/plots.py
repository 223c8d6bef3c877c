"""Plots: curves of a training run as PNG files, and helpers for other figures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.files import write_atomically
from utils.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOSS_PLOTS = {  # file -> history keys of training and validation, axis label
    "train_loss_epoch.png": ("train_loss", "val_loss", "loss"),
    "train_loss_cls.png": ("loss_classifier", "val_loss_classifier", "box head: classification loss"),
    "train_loss_bbox_reg.png": ("loss_box_reg", "val_loss_box_reg", "box head: regression loss"),
    "train_loss_obj.png": ("loss_objectness", "val_loss_objectness", "RPN: objectness loss"),
    "train_loss_rpn_bbox.png": ("loss_rpn_box_reg", "val_loss_rpn_box_reg", "RPN: regression loss"),
}
_DPI = 110
_MAX_LABEL = 24  # characters of a name in a legend
_SMOOTHING = 0.02  # window of the smoothed iteration loss, as a fraction of the run


class _Curve(NamedTuple):
    y: Sequence[float] | np.ndarray
    color: str = "C0"
    dashes: str = "-"
    alpha: float = 1
    width: float = 2
    marked: bool = True  # marks each point if there are few


def plot_training(folder: Path, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray) -> None:
    """Write map.png and the train_loss_*.png files. Curves without values in the history are left out.

    Args:
        folder: output folder.
        history: one mapping per epoch, see docs/checkpoints.md.
        iteration_losses: (N,) total loss of each step.
    """
    epochs = np.arange(1, len(history) + 1)

    def values(key: str) -> np.ndarray:
        return np.array([row.get(key, np.nan) for row in history], float)

    for name, (training, validation, label) in _LOSS_PLOTS.items():
        curves = {"training": _Curve(values(training)), "validation": _Curve(values(validation), "C1")}
        _plot(folder / name, "epoch", label, epochs, curves)
    maps = {
        "validation, IoU 0.50:0.95": _Curve(values("map")),
        "validation, IoU 0.50": _Curve(values("map_05"), "C1"),
        "train sample, IoU 0.50:0.95": _Curve(values("train_map"), "C0", "--"),
        "train sample, IoU 0.50": _Curve(values("train_map_05"), "C1", "--"),
    }
    _plot(folder / "map.png", "epoch", "mAP", epochs, maps)
    steps = {
        "each step": _Curve(iteration_losses, alpha=0.35, width=1, marked=False),
        "smoothed": _Curve(_smooth(iteration_losses), "C1"),
    }
    _plot(folder / "train_loss_iter.png", "iteration", "training loss", np.arange(1, len(iteration_losses) + 1), steps)


def _smooth(values: np.ndarray) -> np.ndarray:
    """(N,) trailing mean over a window; NaN at the first steps, before the window is full."""
    window = max(1, int(len(values) * _SMOOTHING))
    means = np.convolve(values, np.full(window, 1 / window), mode="valid") if len(values) else values
    return np.concatenate([np.full(len(values) - len(means), np.nan), means])


def _plot(path: Path, x_label: str, y_label: str, x: np.ndarray, curves: Mapping[str, _Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    drawn = {title: curve for title, curve in curves.items() if np.isfinite(curve.y).any()}
    for title, (y, color, dashes, alpha, width, marked) in drawn.items():
        marker = "o" if marked and len(x) <= 50 else ""
        axes.plot(x, y, dashes, label=title, color=color, alpha=alpha, lw=width, marker=marker, ms=4)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if drawn:
        axes.legend(handlelength=3)
    write_atomically(path, lambda file: file.write(figure_png(figure)))


def new_figure(width: float, height: float) -> "Figure":
    """Create an empty figure, in inches, that any thread may draw."""
    # Not pyplot: its global state is not thread-safe.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_beside(axes: "Axes", title: str) -> None:
    """Place a legend to the right of the axes, where it covers no curve."""
    axes.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, title_fontsize=9, frameon=False,
        borderaxespad=0, alignment="left",
    )  # fmt: skip


def figure_png(figure: "Figure") -> bytes:
    """Encode a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI)
    return file.getvalue()


def plot_label(name: str) -> str:
    """Shorten a name and escape it, so that Matplotlib does not parse it as a formula."""
    name = printable(name)
    short = name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"
    return short.replace("$", r"\$")
