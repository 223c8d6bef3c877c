"""Charts of a data set as inline SVG, colored by the style sheet of the page."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.text import counted
from utils.visualize.html import percent

_WIDTH, _HEIGHT = 440, 250  # units of the drawing, about px on a page
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 20, 40  # margins
_ROW_WIDTH, _ROW_HEIGHT = 240, 18
_BINS = 44
_MIN_STEPS = 9  # of an integer axis
_MIN_CELLS, _MAX_CELLS, _PER_CELL = 8, 24, 4  # of a heat map: cells per side, and mean points per cell
_LEVELS = 8  # of colors in a heat map
_MAX_BUBBLES = 600


@dataclass(frozen=True)
class AxisScale:
    """Mapping from values to positions on an axis; with `log`, values must be positive."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Positions of values; values beyond the axis are clipped to its ends."""
        low, high = self._linear(self.low), self._linear(self.high)
        fraction = (self._linear(np.clip(values, self.low, self.high)) - low) / (high - low)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, limit: int = 11) -> list[float]:
        """At most about `limit` round values: powers of two, or multiples of 1, 2 or 5 times a power of ten."""
        if self.log:
            first, last = math.ceil(math.log2(self.low) - 1e-9), math.floor(math.log2(self.high) + 1e-9)
            return [2.0**power for power in range(first, last + 1, max(1, -(-(last - first + 1) // limit)))]
        rough = (self.high - self.low) / limit
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def edges(self, bins: int = _BINS) -> np.ndarray:
        """(bins + 1,) borders of bins that have equal widths on the axis."""
        return np.geomspace(self.low, self.high, bins + 1) if self.log else np.linspace(self.low, self.high, bins + 1)

    def _linear(self, values: np.ndarray | float) -> np.ndarray:
        return np.log2(values) if self.log else np.asarray(values)


def octave_scale(
    values: np.ndarray, anchors: Sequence[float], start: float = _LEFT, end: float = _WIDTH - _RIGHT
) -> AxisScale:
    """Logarithmic axis from one power of two to another that contains all values and anchors."""
    low = min(np.min(values, initial=np.inf), anchors[0] / 2)
    high = max(np.max(values, initial=0), anchors[-1] * 2)
    return AxisScale(2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high)), start, end, log=True)


def integer_scale(largest: int) -> tuple[AxisScale, np.ndarray]:
    """Axis for integers from 0 to `largest`, and the edges of its bins, halfway between integers."""
    largest = max(largest, _MIN_STEPS)
    width = -(-(largest + 1) // _BINS)
    edges = np.arange(-(-(largest + 1) // width) + 1) * width - 0.5
    return AxisScale(float(edges[0]), float(edges[-1]), _LEFT, _WIDTH - _RIGHT), edges


def histogram(
    groups: Mapping[str, np.ndarray],
    x: AxisScale,
    *,
    description: str,
    label: str,
    edges: np.ndarray | None = None,
    marks: Sequence[float] = (),
    name: Callable[[float], str] = "{:g}".format,
) -> str:
    """Draw a histogram of the values of each split, as fractions of the split.

    Args:
        groups: split -> (M,) values.
        x: the axis.
        description: text alternative.
        label: of the x axis.
        edges: of the bins; None for bins of equal width.
        marks: values marked with a dashed line.
        name: formats a value.
    """
    edges = x.edges() if edges is None else edges
    counts = {split: np.histogram(np.clip(v, x.low, x.high), edges)[0] for split, v in groups.items() if len(v)}
    shares = {split: count / count.sum() for split, count in counts.items()}
    y = AxisScale(0, 1.08 * max((float(share.max()) for share in shares.values()), default=1), _HEIGHT - _BOTTOM, _TOP)
    positions = x(edges)
    parts = [_grid(x, y, label, name, [mark for mark in marks if x.low <= mark <= x.high])]
    for split, share in shares.items():
        tops = "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(positions[:-1], y(share), strict=True))
        parts.append(
            f'<path class="area {split}" d="M{positions[0]:.1f} {y.start}{tops}H{positions[-1]:.1f}V{y.start}"/>'
        )
    for i, (left, right) in enumerate(itertools.pairwise(positions)):
        if any(count[i] for count in counts.values()):
            by_split = ", ".join(f"{split} {c[i]:,} ({percent(c[i], c.sum())})" for split, c in counts.items())
            interval = _bin_interval(edges[i], edges[i + 1], name)
            parts.append(_hover(left, y.end, right - left, y.start - y.end, f"{interval}: {by_split}"))
    return _svg(parts, description)


def heat_map(points: np.ndarray, description: str) -> str:
    """Draw the density of (M, 2) points, x and y from 0 to 1; stronger colors mean more points."""
    cells = int(np.clip((len(points) / _PER_CELL) ** 0.5, _MIN_CELLS, _MAX_CELLS))
    counts = np.histogram2d(*np.clip(points, 0, 1).T, bins=cells, range=((0, 1), (0, 1)))[0].astype(int)
    largest = int(counts.max())
    levels = np.ceil(counts / max(largest, 1) * _LEVELS).astype(int)
    side, parts = 240 // cells, []
    size = side * cells
    for level in range(1, _LEVELS + 1):
        drawn = "".join(f"M{side * i} {side * j}h{side}v{side}h-{side}z" for i, j in np.argwhere(levels == level))
        if drawn:
            few, many = -(-(level - 1) * largest // _LEVELS) + (level > 1), level * largest // _LEVELS
            title = counted(many, "box", "boxes") if few >= many else f"{max(1, few):,} to {many:,} boxes"
            parts.append(
                f'<path class="heat" opacity="{level / _LEVELS:.3g}" d="{drawn}"><title>{title}</title></path>'
            )
    middle = f"M{size / 2} 0V{size}M0 {size / 2}H{size}"
    parts.append(f'<path class="grid" d="{middle}"/><rect class="frame" width="{size}" height="{size}"/>')
    return _svg(parts, description, size, size)


def bubbles(groups: Mapping[str, np.ndarray], description: str) -> str:
    """Draw a disc for every image size, larger for more frequent sizes.

    Args:
        groups: split -> (N, 2) height and width.
        description: text alternative.
    """
    largest = max((int(sizes.max()) for sizes in groups.values() if len(sizes)), default=1)
    x = AxisScale(0, largest * 1.15, _LEFT, _WIDTH - _RIGHT)
    y = AxisScale(0, largest * 1.15, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, "width, px", "{:g}".format, share=False)]
    parts.append(f'<path class="mark" d="M{x.start} {y.start}L{x.end} {y.end}"/>')
    discs = []
    for inset, (split, sizes) in enumerate(groups.items()):
        unique, counts = np.unique(sizes, axis=0, return_counts=True)
        common = np.argsort(-counts, kind="stable")[:_MAX_BUBBLES]
        discs.extend((int(counts[i]) / len(sizes), inset, split, int(counts[i]), *unique[i].tolist()) for i in common)
    for share, inset, split, count, height, width in sorted(discs, key=lambda disc: (disc[1], -disc[0])):
        title = f"{width}&times;{height}: {counted(count, 'image')} of {split} ({percent(share, 1)})"
        radius = (3 + 17 * share**0.5) * (1 - inset / 4)  # smaller for later splits, so that equal sizes form rings
        at = f'cx="{x(width):.1f}" cy="{y(height):.1f}" r="{radius:.1f}"'
        parts.append(f'<circle class="disc {split}" {at}><title>{title}</title></circle>')
    parts.append(f'<text class="label" x="{_LEFT - 32}" y="{_TOP - 8}">height, px</text>')
    return _svg(parts, description)


def quantile_scale(values: np.ndarray, anchors: Sequence[float]) -> AxisScale:
    """Axis shared by the rows of `quantile_row`."""
    return octave_scale(values, anchors, 4, _ROW_WIDTH - 4)


def quantile_row(x: AxisScale, quantiles: Sequence[float], marks: Sequence[float]) -> str:
    """Draw one row of a box plot.

    Args:
        x: the axis, see quantile_scale.
        quantiles: at 5% (start of the whisker), 25% (start of the bar), 50%, 75% and 95%.
        marks: values marked with a line.
    """
    low, first_quartile, median, third_quartile, high = x(np.asarray(quantiles)).tolist()
    y = _ROW_HEIGHT / 2
    parts = [f'<path class="grid" d="{"".join(f"M{x(mark):.1f} 0V{_ROW_HEIGHT}" for mark in marks)}"/>']
    parts.append(f'<path class="whisker" d="M{low:.1f} {y}H{max(high, low + 1):.1f}"/>')
    width = max(2, third_quartile - first_quartile)
    parts.append(f'<rect class="box" x="{first_quartile:.1f}" y="4" width="{width:.1f}" height="10" rx="2"/>')
    parts.append(f'<path class="median" d="M{median:.1f} 2V{_ROW_HEIGHT - 2}"/>')
    description = f"median {quantiles[2]:.0f} px; 90% of the boxes from {quantiles[0]:.0f} to {quantiles[4]:.0f} px"
    return _svg(parts, description, _ROW_WIDTH, _ROW_HEIGHT, kind="span")


def quantile_heading(x: AxisScale, marks: Sequence[float]) -> str:
    """Draw the anchor sizes, as heading above the rows."""
    parts = [f'<text class="tick" x="{x(mark):.1f}" y="13" text-anchor="middle">{mark:g}</text>' for mark in marks]
    return _svg(
        parts, f"anchors of {', '.join(f'{mark:g}' for mark in marks)} px", _ROW_WIDTH, _ROW_HEIGHT, kind="span"
    )


def _grid(
    x: AxisScale,
    y: AxisScale,
    label: str,
    name: Callable[[float], str],
    marks: Sequence[float] = (),
    *,
    share: bool = True,
) -> str:
    """Grid lines, tick labels and the label of the x axis; with `share` the y axis is in percent."""
    parts = []
    for value in y.ticks(5):
        at = float(y(value))
        number = f"{100 * value:.3g}%" if share else f"{value:g}"
        parts.append(f'<path class="grid" d="M{x.start} {at:.1f}H{x.end}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{number}</text>')
    for value in x.ticks():
        at = float(x(value))
        anchor = "end" if at > x.end - 8 else "middle"
        parts.append(f'<path class="axis" d="M{at:.1f} {y.start}v4"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{y.start + 16}" text-anchor="{anchor}">{name(value)}</text>')
    for mark in marks:
        at = float(x(mark))
        parts.append(f'<path class="mark" d="M{at:.1f} {y.start}V{y.end - 4}"/>')
        parts.append(f'<text class="marked" x="{at:.1f}" y="{y.end - 8}" text-anchor="middle">{name(mark)}</text>')
    parts.append(f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>')
    parts.append(
        f'<text class="label" x="{(x.start + x.end) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{label}</text>'
    )
    return "".join(parts)


def _bin_interval(low: float, high: float, name: Callable[[float], str]) -> str:
    first, last = math.ceil(low), math.ceil(high) - 1  # integers in the bin
    if low % 1 == 0.5 and high % 1 == 0.5:
        return f"{first}" if first == last else f"{first} to {last}"
    return f"{name(float(f'{low:.3g}'))} to {name(float(f'{high:.3g}'))}"


def _hover(x: float, y: float, width: float, height: float, title: str) -> str:
    """Invisible rectangle with a tooltip."""
    at = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="hover" {at}><title>{title}</title></rect>'


def _svg(
    parts: Sequence[str], description: str, width: float = _WIDTH, height: float = _HEIGHT, *, kind: str = "chart"
) -> str:
    attributes = f'class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{description}"'
    return f"<svg {attributes}>{''.join(parts)}</svg>"
