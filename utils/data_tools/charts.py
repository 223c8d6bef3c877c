"""Charts of a data set as SVG inside an HTML page: text stays text, and the page's style sheet gives the colors."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.text import counted
from utils.visualize.html import percent

_WIDTH, _HEIGHT = 440, 250  # units of the drawing, about px on a page
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 20, 40  # margins
_SPAN_WIDTH, _SPAN_HEIGHT = 240, 18
_BINS = 44
_FEWEST_STEPS = 9
_FEWEST_CELLS, _MOST_CELLS, _PER_CELL = 8, 24, 4  # of a heat map: in each direction, and points a cell
_LEVELS = 8  # of its colors
_MOST_BUBBLES = 600


@dataclass(frozen=True)
class Scale:
    """From values to units along an axis; one with `log` takes positive values."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie; those beyond the axis at its ends."""
        low, high = self._line(self.low), self._line(self.high)
        part = (self._line(np.clip(values, self.low, self.high)) - low) / (high - low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 11) -> list[float]:
        """Round values: powers of two, or multiples of 1, 2 or 5 times a power of ten."""
        if self.log:
            first, last = math.ceil(math.log2(self.low) - 1e-9), math.floor(math.log2(self.high) + 1e-9)
            return [2.0**power for power in range(first, last + 1, max(1, -(-(last - first + 1) // most)))]
        rough = (self.high - self.low) / most
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def edges(self, bins: int = _BINS) -> np.ndarray:
        """(bins + 1,) borders of bins that look alike."""
        return np.geomspace(self.low, self.high, bins + 1) if self.log else np.linspace(self.low, self.high, bins + 1)

    def _line(self, values: np.ndarray | float) -> np.ndarray:
        return np.log2(values) if self.log else np.asarray(values)


def octaves(values: np.ndarray, anchors: Sequence[float], start: float = _LEFT, end: float = _WIDTH - _RIGHT) -> Scale:
    """A logarithmic axis, of whole powers of two, on which all values and all anchors lie."""
    low = min(np.min(values, initial=np.inf), anchors[0] / 2)
    high = max(np.max(values, initial=0), anchors[-1] * 2)
    return Scale(2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high)), start, end, log=True)


def steps(most: int) -> tuple[Scale, np.ndarray]:
    """An axis for whole numbers from 0 to `most`, and the edges of its bins, halfway between them."""
    most = max(most, _FEWEST_STEPS)
    width = -(-(most + 1) // _BINS)
    edges = np.arange(-(-(most + 1) // width) + 1) * width - 0.5
    return Scale(float(edges[0]), float(edges[-1]), _LEFT, _WIDTH - _RIGHT), edges


def histogram(
    groups: Mapping[str, np.ndarray],
    x: Scale,
    *,
    about: str,
    label: str,
    edges: np.ndarray | None = None,
    marks: Sequence[float] = (),
    name: Callable[[float], str] = "{:g}".format,
) -> str:
    """Outlines, one a split, of how the values of each are spread.

    Args:
        groups: split -> (M,) values.
        x: the axis.
        about: what a reader who does not see it is told.
        label: of the axis.
        edges: of the bins.
        marks: values where a dashed line stands.
        name: writes a value.
    """
    edges = x.edges() if edges is None else edges
    counts = {split: np.histogram(np.clip(v, x.low, x.high), edges)[0] for split, v in groups.items() if len(v)}
    shares = {split: count / count.sum() for split, count in counts.items()}
    y = Scale(0, 1.08 * max((float(share.max()) for share in shares.values()), default=1), _HEIGHT - _BOTTOM, _TOP)
    places = x(edges)
    parts = [_grid(x, y, label, name, [mark for mark in marks if x.low <= mark <= x.high])]
    for split, share in shares.items():
        tops = "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(places[:-1], y(share), strict=True))
        parts.append(f'<path class="area {split}" d="M{places[0]:.1f} {y.start}{tops}H{places[-1]:.1f}V{y.start}"/>')
    for i, (left, right) in enumerate(itertools.pairwise(places)):
        if any(count[i] for count in counts.values()):
            of = ", ".join(f"{split} {c[i]:,} ({percent(c[i], c.sum())})" for split, c in counts.items())
            span = _span_of_bin(edges[i], edges[i + 1], name)
            parts.append(_hover(left, y.end, right - left, y.start - y.end, f"{span}: {of}"))
    return _svg(parts, about)


def heat_map(points: np.ndarray, about: str) -> str:
    """Where points, (M, 2) x and y from 0 to 1, lie close together; a stronger color is more."""
    cells = int(np.clip((len(points) / _PER_CELL) ** 0.5, _FEWEST_CELLS, _MOST_CELLS))
    counts = np.histogram2d(*np.clip(points, 0, 1).T, bins=cells, range=((0, 1), (0, 1)))[0].astype(int)
    most = int(counts.max())
    levels = np.ceil(counts / max(most, 1) * _LEVELS).astype(int)
    side, parts = 240 // cells, []
    size = side * cells
    for level in range(1, _LEVELS + 1):
        drawn = "".join(f"M{side * i} {side * j}h{side}v{side}h-{side}z" for i, j in np.argwhere(levels == level))
        if drawn:
            few, many = -(-(level - 1) * most // _LEVELS) + (level > 1), level * most // _LEVELS
            words = counted(many, "box", "boxes") if few >= many else f"{max(1, few):,} to {many:,} boxes"
            parts.append(
                f'<path class="heat" opacity="{level / _LEVELS:.3g}" d="{drawn}"><title>{words}</title></path>'
            )
    middle = f"M{size / 2} 0V{size}M0 {size / 2}H{size}"
    parts.append(f'<path class="grid" d="{middle}"/><rect class="frame" width="{size}" height="{size}"/>')
    return _svg(parts, about, size, size)


def bubbles(groups: Mapping[str, np.ndarray], about: str) -> str:
    """Image sizes: a disc for every size that occurs, as large as it is frequent.

    Args:
        groups: split -> (N, 2) height and width.
        about: what a reader who does not see it is told.
    """
    largest = max((int(sizes.max()) for sizes in groups.values() if len(sizes)), default=1)
    x = Scale(0, largest * 1.15, _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, largest * 1.15, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, "width, px", "{:g}".format, share=False)]
    parts.append(f'<path class="mark" d="M{x.start} {y.start}L{x.end} {y.end}"/>')
    discs = []
    for inset, (split, sizes) in enumerate(groups.items()):
        unique, counts = np.unique(sizes, axis=0, return_counts=True)
        common = np.argsort(-counts, kind="stable")[:_MOST_BUBBLES]
        discs.extend((int(counts[i]) / len(sizes), inset, split, int(counts[i]), *unique[i].tolist()) for i in common)
    for share, inset, split, count, height, width in sorted(discs, key=lambda disc: (disc[1], -disc[0])):
        words = f"{width}&times;{height}: {counted(count, 'image')} of {split} ({percent(share, 1)})"
        radius = (3 + 17 * share**0.5) * (1 - inset / 4)  # so that splits that are alike form rings
        at = f'cx="{x(width):.1f}" cy="{y(height):.1f}" r="{radius:.1f}"'
        parts.append(f'<circle class="disc {split}" {at}><title>{words}</title></circle>')
    parts.append(f'<text class="label" x="{_LEFT - 32}" y="{_TOP - 8}">height, px</text>')
    return _svg(parts, about)


def span_scale(values: np.ndarray, anchors: Sequence[float]) -> Scale:
    """The axis that the rows of `span` share."""
    return octaves(values, anchors, 4, _SPAN_WIDTH - 4)


def span(x: Scale, quantiles: Sequence[float], marks: Sequence[float]) -> str:
    """One row: 5 to 95% as a line, 25 to 75% as a bar, and the median; `quantiles` are those five, in order."""
    low, quarter, middle, most, high = x(np.asarray(quantiles)).tolist()
    y = _SPAN_HEIGHT / 2
    parts = [f'<path class="grid" d="{"".join(f"M{x(mark):.1f} 0V{_SPAN_HEIGHT}" for mark in marks)}"/>']
    parts.append(f'<path class="whisker" d="M{low:.1f} {y}H{max(high, low + 1):.1f}"/>')
    parts.append(f'<rect class="box" x="{quarter:.1f}" y="4" width="{max(2, most - quarter):.1f}" height="10" rx="2"/>')
    parts.append(f'<path class="median" d="M{middle:.1f} 2V{_SPAN_HEIGHT - 2}"/>')
    words = f"median {quantiles[2]:.0f} px; 90% of the boxes from {quantiles[0]:.0f} to {quantiles[4]:.0f} px"
    return _svg(parts, words, _SPAN_WIDTH, _SPAN_HEIGHT, kind="span")


def span_heading(x: Scale, marks: Sequence[float]) -> str:
    """The anchors' sizes, to stand above the rows."""
    parts = [f'<text class="tick" x="{x(mark):.1f}" y="13" text-anchor="middle">{mark:g}</text>' for mark in marks]
    return _svg(
        parts, f"anchors of {', '.join(f'{mark:g}' for mark in marks)} px", _SPAN_WIDTH, _SPAN_HEIGHT, kind="span"
    )


def _grid(
    x: Scale, y: Scale, label: str, name: Callable[[float], str], marks: Sequence[float] = (), *, share: bool = True
) -> str:
    """Lines, numbers and the label of the x axis; `share`: the y axis is in per cent."""
    parts = []
    for value in y.ticks(5):
        at = float(y(value))
        words = f"{100 * value:.3g}%" if share else f"{value:g}"
        parts.append(f'<path class="grid" d="M{x.start} {at:.1f}H{x.end}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{words}</text>')
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


def _span_of_bin(low: float, high: float, name: Callable[[float], str]) -> str:
    whole = math.ceil(low), math.ceil(high) - 1  # whole numbers in it
    if low % 1 == 0.5 and high % 1 == 0.5:
        return f"{whole[0]}" if whole[0] == whole[1] else f"{whole[0]} to {whole[1]}"
    return f"{name(float(f'{low:.3g}'))} to {name(float(f'{high:.3g}'))}"


def _hover(x: float, y: float, width: float, height: float, words: str) -> str:
    """An invisible field that says something under the pointer."""
    at = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="hover" {at}><title>{words}</title></rect>'


def _svg(
    parts: Sequence[str], about: str, width: float = _WIDTH, height: float = _HEIGHT, *, kind: str = "chart"
) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{about}">{"".join(parts)}</svg>'
