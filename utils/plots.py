"""Curves of a training run as PNG files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EPOCH_PLOTS = {  # file -> (history key, axis label); the names are those that users' scripts look for
    "train_loss_epoch.png": ("train_loss", "training loss"),
    "train_loss_cls.png": ("loss_classifier", "box head: classification loss"),
    "train_loss_bbox_reg.png": ("loss_box_reg", "box head: regression loss"),
    "train_loss_obj.png": ("loss_objectness", "RPN: objectness loss"),
    "train_loss_rpn_bbox.png": ("loss_rpn_box_reg", "RPN: regression loss"),
}
_DPI = 110
_LONGEST = 24  # characters of a name in a legend
_SMOOTHING = 0.02  # window of the smoothed iteration loss, as a fraction of the run


def plot_training(folder: Path, history: Sequence[Mapping[str, float]], iteration_losses: np.ndarray) -> None:
    """Write map.png and the train_loss_*.png files.

    Args:
        folder: where to.
        history: one mapping an epoch: map, map_05, train_loss and the four loss terms.
        iteration_losses: (N,) total loss of every step.
    """
    epochs = np.arange(1, len(history) + 1)
    for name, (key, label) in _EPOCH_PLOTS.items():
        _plot(folder / name, "epoch", label, {"": (epochs, [row.get(key, np.nan) for row in history])})
    maps = {title: [row.get(key, np.nan) for row in history] for key, title in _MAPS.items()}
    _plot(folder / "map.png", "epoch", "validation mAP", {t: (epochs, values) for t, values in maps.items()})
    steps = np.arange(1, len(iteration_losses) + 1)
    _plot(
        folder / "train_loss_iter.png",
        "iteration",
        "training loss",
        {"each step": (steps, iteration_losses), "smoothed": _smooth(steps, iteration_losses)},
    )


_MAPS = {"map": "IoU 0.50:0.95", "map_05": "IoU 0.50"}


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    window = max(1, int(len(values) * _SMOOTHING))
    smoothed = np.convolve(values, np.full(window, 1 / window), mode="valid") if len(values) else values
    return steps[window - 1 :], smoothed


def _plot(path: Path, x_label: str, y_label: str, curves: Mapping[str, tuple[Sequence, Sequence]]) -> None:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    for number, (title, (x, y)) in enumerate(curves.items()):
        faint = title == "each step"
        marker = "o" if len(x) <= 50 and not faint else ""
        axes.plot(
            x, y, label=title, color=f"C{number}", alpha=0.35 if faint else 1, lw=1 if faint else 2, marker=marker, ms=4
        )
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    figure.savefig(path, dpi=_DPI)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, which any thread may draw."""
    # Not pyplot: its global state belongs to one thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_beside(axes: "Axes", title: str) -> None:
    """A legend beside the axes, where it hides nothing."""
    axes.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, title_fontsize=9, frameon=False,
        borderaxespad=0, alignment="left",
    )  # fmt: skip


def png(figure: "Figure") -> bytes:
    """The figure as a file."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI)
    return file.getvalue()


def shown(name: str) -> str:
    """A name from a file that Matplotlib takes as it is."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    short = printable if len(printable) <= _LONGEST else f"{printable[: _LONGEST - 1]}…"
    return short.replace("$", r"\$")
