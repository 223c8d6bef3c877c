"""Comparison of training runs as a text table, as curves, and as an HTML page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np

from torch_utils.runs.run_history import RunHistory
from utils.text import counted, printable
from utils.visualize.html import html_table, html_text
from utils.visualize.pages import figure, page
from utils.visualize.plots import figure_png, legend_beside, new_figure, plot_label

_IGNORED_OPTIONS = ("name", "project_dir", "weights", "resume_training")  # these do not influence the result
_CURVES = {  # file name -> history key, label, higher is better
    "compare_map.png": ("map", "mAP, IoU 0.50:0.95", True),
    "compare_map_05.png": ("map_05", "mAP, IoU 0.50", True),
    "compare_train_map.png": ("train_map", "mAP on a sample of the training images", True),
    "compare_val_loss.png": ("val_loss", "validation loss", False),
    "compare_train_loss.png": ("train_loss", "training loss", False),
    "compare_loss_cls.png": ("loss_classifier", "box head: classification loss", False),
    "compare_loss_bbox_reg.png": ("loss_box_reg", "box head: regression loss", False),
    "compare_loss_obj.png": ("loss_objectness", "RPN: objectness loss", False),
    "compare_loss_rpn_bbox.png": ("loss_rpn_box_reg", "RPN: regression loss", False),
}
_MISSING = "-"
_MAX_VALUE = 60  # characters of an option's value
_SEPARATORS = "_-./ "  # between the words of a name
_MAX_PREFIX = 8  # characters of a common prefix that short names keep
_STYLES = ("-", "--", ":", "-.")  # line styles, each for _COLORS runs
_COLORS = 10
_MAX_MARKERS = 50  # epochs up to which each has a marker


@dataclass(frozen=True)
class Row:
    """A metric or an option of every run; None where it is unknown."""

    name: str
    cells: tuple[str | None, ...]
    best: frozenset[int] = frozenset()  # indices of the runs with the best value


@dataclass(frozen=True)
class Comparison:
    """Comparison of one or more runs."""

    runs: Sequence[RunHistory]
    names: Sequence[str]  # unique, one per run

    @cached_property
    def results(self) -> list[Row]:
        """Metrics, losses and times of the runs."""
        return [
            self._row("epochs", lambda run: len(run.epochs), "{:,}"),
            self._row("best epoch", lambda run: run.epochs[run.best], "{}"),
            self._row("mAP, IoU 0.50:0.95", lambda run: run.columns["map"][run.best], best=max),
            self._row("mAP, IoU 0.50", lambda run: run.columns["map_05"][run.best], best=max),
            self._row("last mAP, IoU 0.50:0.95", lambda run: run.columns["map"][-1]),
            *(
                self._row(f"last {label}", lambda run, key=key: run.columns[key][-1])
                for key, label, higher_is_better in _CURVES.values()
                if not higher_is_better
            ),
            self._row("training time per epoch, s", lambda run: run.epoch_seconds, "{:,.0f}", best=min),
            self._row("best threshold", lambda run: run.metrics["best_threshold"]),
            self._row("F1 at best threshold", lambda run: run.metrics["at_best_threshold"]["f1"], best=max),
        ]

    @cached_property
    def options(self) -> list[Row]:
        """Options that differ between the runs that have them."""
        rows = []
        for name in dict.fromkeys(name for run in self.runs for name in run.options):
            cells = tuple(_short_value(run.options[name]) if name in run.options else None for run in self.runs)
            if name not in _IGNORED_OPTIONS and len({cell for cell in cells if cell is not None}) > 1:
                rows.append(Row(name, cells))
        return rows

    @cached_property
    def short_names(self) -> list[str]:
        """Names without a long common prefix, for table headings and legends."""
        if len(self.names) == 1:
            return list(self.names)
        prefix = takewhile(lambda letters: len(set(letters)) == 1, zip(*self.names, strict=False))
        common = "".join(letters[0] for letters in prefix)
        start = max(common.rfind(separator) for separator in _SEPARATORS) + 1
        return [f"…{name[start:]}" if start > _MAX_PREFIX else name for name in self.names]

    def lines(self) -> list[str]:
        """Lines of a text table; a star marks the best run of a row."""
        head = Row("", tuple(self.short_names))
        rows = [row for row in self.results if any(cell is not None for cell in row.cells)]
        width = max(len(row.name) for row in (*rows, *self.options))
        columns = [
            max(len(row.cells[k] or _MISSING) for row in (head, *rows, *self.options)) for k in range(len(self.runs))
        ]
        rule = "-" * (width + sum(columns) + 4 * len(columns))

        def line(row: Row) -> str:
            cells = (
                f"  {cell or _MISSING:>{columns[k]}} {'*' if k in row.best else ' '}"
                for k, cell in enumerate(row.cells)
            )
            return f"{row.name:<{width}}{''.join(cells)}".rstrip()

        differing = [rule, *map(line, self.options)] if self.options else []
        return [rule, line(head), rule, *map(line, rows), *differing, rule]

    def plots(self) -> dict[str, bytes]:
        """Draw the curves that any run has: file name -> PNG."""
        return {
            file: self._plot(key, label, higher_is_better)
            for file, (key, label, higher_is_better) in _CURVES.items()
            if any(not np.isnan(run.columns[key]).all() for run in self.runs)
        }

    def page(self, plots: Mapping[str, bytes]) -> str:
        """Build the HTML page; `plots` are the PNG files of plots()."""
        pictures = "".join(
            figure(data, f"{_CURVES[file][1]}, epoch by epoch", wide=file == next(iter(plots)))
            for file, data in plots.items()
        )
        options = self._table(self.options) if self.options else "<p>No known option differs.</p>"
        sections = {
            "results": ("Results", f"<p>The best value of a row is green.</p>{self._table(self.results)}"),
            "options": ("Options that differ", options),
            "curves": ("Curves", f'<div class="plots">{pictures}</div>'),
        }
        return page(f"Comparison of {counted(len(self.runs), 'run')}", sections)

    def _row(
        self,
        name: str,
        value_of: Callable[[RunHistory], Any],
        form: str = "{:.4f}",
        *,
        best: Callable[[Sequence[float]], float] | None = None,
    ) -> Row:
        values = [_value(run, value_of) for run in self.runs]
        known = [value for value in values if value is not None]
        top = best(known) if best and len(known) > 1 else None
        cells = tuple(None if value is None else form.format(value) for value in values)
        return Row(name, cells, frozenset(k for k, value in enumerate(values) if top is not None and value == top))

    def _table(self, rows: Sequence[Row]) -> str:
        def cell(row: Row, k: int) -> str:
            content = "&ndash;" if row.cells[k] is None else html_text(row.cells[k])
            return f'<span class="fine">{content}</span>' if k in row.best else content

        known = [row for row in rows if any(cell is not None for cell in row.cells)]
        head = ["", *(f'<span class="file">{html_text(name, 60)}</span>' for name in self.names)]
        cells = [[html_text(row.name), *(cell(row, k) for k in range(len(self.runs)))] for row in known]
        return html_table(head, cells, kind="numbers")

    def _plot(self, key: str, label: str, higher_is_better: bool) -> bytes:
        canvas = new_figure(14.5 if key == "map" else 8.5, 5.4)
        axes = canvas.add_subplot()
        for number, (run, name) in enumerate(zip(self.runs, self.short_names, strict=True)):
            values = run.columns[key]
            known = values[~np.isnan(values)]
            value = f"{known.max() if higher_is_better else known[-1]:.4f}" if len(known) else f"   {_MISSING}   "
            axes.plot(
                run.epochs, values, label=f"{value}  {plot_label(name)}", color=f"C{number % _COLORS}", lw=2,
                ls=_STYLES[number // _COLORS % len(_STYLES)], marker="o" if len(values) <= _MAX_MARKERS else "", ms=4,
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        legend_beside(axes, "highest" if higher_is_better else "last")
        return figure_png(canvas)


def compare_runs(runs: Mapping[str, RunHistory]) -> Comparison:
    """Compare runs, given by the path of their folder; runs whose folder names are equal are named by their path."""
    names = [run.name for run in runs.values()]
    unique = [name if names.count(name) == 1 else path for path, name in zip(runs, names, strict=True)]
    return Comparison(list(runs.values()), [printable(name) for name in unique])


def _value(run: RunHistory, value_of: Callable[[RunHistory], Any]) -> float | int | None:
    """The number that `value_of` returns; None if it is missing, not a number, or not finite."""
    try:
        value = value_of(run)
    except (LookupError, TypeError):
        return None
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _short_value(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"
