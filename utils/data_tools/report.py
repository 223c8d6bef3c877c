"""Self-contained HTML report of a data set check: no network, no scripts, no other files."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data_tools.charts import (
    bubbles,
    heat_map,
    histogram,
    integer_scale,
    octave_scale,
    quantile_heading,
    quantile_row,
    quantile_scale,
)
from utils.data_tools.check import DROPPED, EFFECT_NAMES, LEAKAGE_KINDS, REPAIRED, STOPS, DataCheck
from utils.data_tools.report_faults import EFFECTS, problems_section
from utils.data_tools.statistics import SplitBoxes, class_quantiles, sample_images, training_boxes
from utils.data_tools.thumbnails import Album
from utils.files import write_text
from utils.labels.anchors import Anchors
from utils.labels.data_config import SPLITS
from utils.loading.size_rule import SizeRule
from utils.progress import progress_bar
from utils.text import counted
from utils.visualize.html import html_list, html_table, html_text, percent
from utils.visualize.pages import page, tiles

_SAMPLES = 16  # images per split
_MAX_CLASSES = 300  # rows of a table
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_ANCHOR_IOU = 0.5  # minimum IoU of a box with its best anchor
_IMBALANCE = 20  # ratio of boxes between classes from which the report notes it
_STYLE = Path(__file__).with_suffix(".css")


def write_report(path: Path, checked: DataCheck, rule: SizeRule, *, limit: int = 20) -> None:
    """Write the report.

    Args:
        path: HTML file.
        checked: result of the check.
        rule: size rule of the planned training; boxes are compared with the anchors at network size.
        limit: problems of each kind that are shown with their image, at most 50.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, report_page(checked, rule, limit=limit))


def report_page(checked: DataCheck, rule: SizeRule, *, limit: int = 20) -> str:
    """Build the HTML of the report, see write_report; less than 10 MB for any data set."""
    content = _Page(
        checked, rule, {name: training_boxes(reading, rule) for name, reading in checked.readings.items()}, Anchors()
    )
    album = Album()
    sections: dict[str, tuple[str, Callable[[], str]]] = {
        "problems": ("Problems", lambda: problems_section(checked, album, limit)),
        "classes": ("Classes", content.classes),
        "sizes": ("Boxes and anchors", content.sizes),
        "places": ("Box positions", content.positions),
        "images": ("Images", content.images),
        "samples": ("Samples", lambda: content.samples(album)),
    }
    drawn = {
        key: draw() for key, (_, draw) in reversed(sections.items())
    }  # reversed: samples get room in the album first
    return page(
        f"Check of {Path(checked.data).name}",
        {key: (name, drawn[key]) for key, (name, _) in sections.items()},
        summary=content.summary(),
        under_title=f'<p class="path">{html_text(checked.data)}</p>',
        styles=[_STYLE],
    )


@dataclass(frozen=True)
class _Page:
    checked: DataCheck
    rule: SizeRule
    splits: Mapping[str, SplitBoxes]
    anchors: Anchors

    def summary(self) -> str:
        """Verdict, key numbers, effects of the problems, notes, and a table of the splits."""
        checked = self.checked
        effects = Counter(problem.effect for problem in checked.problems)
        verdict, message = self._verdict()
        counts = {
            "splits": sum(name in checked.splits and bool(checked.splits[name].image_folder) for name in SPLITS),
            "images": sum(split.images for split in checked.splits.values()),
            "boxes": sum(split.boxes for split in checked.splits.values()),
            "classes": len(checked.classes),
        }
        total = {name: f"{number:,}" for name, number in counts.items()}
        states = "".join(
            f'<li class="{effect if effects[effect] else "none"}"><b>{effects[effect]:,}</b>'
            f'<span class="effect {effect}"><span aria-hidden="true">{sign}</span> {EFFECT_NAMES[effect]}</span>'
            f"<small>{meaning}</small></li>"
            for effect, (sign, meaning) in EFFECTS.items()
        )
        notes = "".join(f"<li>{note}</li>" for note in self._notes())
        return (
            f'<section id="summary" aria-label="Summary">\n<div class="verdict {verdict}"><span aria-hidden="true">'
            f"{'✕' if checked.stops else '✓'}</span><div>{message}</div></div>\n{tiles(total)}"
            f'<h3>Problems by effect on training</h3><ul class="effects">{states}</ul>\n'
            f"{f'<h3>Notes</h3><ul class=notes>{notes}</ul>' if notes else ''}\n"
            f"<h3>Splits</h3>{self._splits_table()}</section>\n"
        )

    def classes(self) -> str:
        """Table of boxes and images per class and split."""
        names = list(self.splits)
        boxes = {name: list(self.checked.splits[name].boxes_per_class.values()) for name in names}
        images = {name: self._images_per_class(name) for name in names}
        largest = {name: max(1, *counts, 1) for name, counts in boxes.items()}
        order = sorted(range(len(self.checked.classes)), key=lambda c: -sum(counts[c] for counts in boxes.values()))
        rows = []
        for c in order[:_MAX_CLASSES]:
            bars = [_bar(name, boxes[name][c], images[name][c], largest[name]) for name in names]
            rows.append([f'<span class="file">{html_text(self.checked.classes[c], 80)}</span>', *bars])
        for name in self._unknown():
            counts = [self.checked.splits[split].unknown_classes.get(name, 0) for split in names]
            cells = [f'<span class="lacking">{counted(n, "box", "boxes")}</span>' if n else "" for n in counts]
            rows.append(
                [f'<span class="file">{html_text(name, 80)}</span> <span class="lacking">not in CLASSES</span>', *cells]
            )
        return (
            "<p>Training boxes; bars are relative to the largest class of the split.</p>"
            + html_table(
                ["class", *(f'<span class="key {name}">{name}</span>' for name in names)], rows, kind="classes"
            )
            + _and_more(len(order) - _MAX_CLASSES, "classes")
        )

    def sizes(self) -> str:
        """Sizes and aspect ratios of boxes at network size, compared with the anchors."""
        sides = {name: split.sides() for name, split in self.splits.items()}
        areas = {name: np.sqrt(each.prod(1)) for name, each in sides.items()}
        shapes = {name: each[:, 1] / each[:, 0] for name, each in sides.items()}
        every, shape = np.concatenate(list(areas.values())), np.concatenate(list(shapes.values()))
        if not len(every):
            return '<p class="none">No boxes.</p>'
        anchors = self.anchors
        small, large = int((every < anchors.small).sum()), int((every > anchors.large).sum())
        fit = anchors.best_iou(np.concatenate(list(sides.values()))) >= _ANCHOR_IOU
        summary = (
            f"<p>Sizes at network input, with images resized to {self.rule}. "
            f"<b>{percent(small, len(every))}</b> of the boxes are smaller than half the smallest anchor "
            f"(below {anchors.small:g} px), <b>{percent(large, len(every))}</b> larger than the largest "
            f"(above {anchors.large:g} px). For <b>{percent(int((~fit).sum()), len(every))}</b> no anchor "
            f"centered on the box reaches an IoU of {_ANCHOR_IOU:g}.</p>"
        )
        of_size = histogram(
            areas, octave_scale(every, anchors.sizes), description=_medians("box sizes", areas, " px"),
            label="√area in px at network input; dashed: anchors", marks=anchors.sizes,
        )  # fmt: skip
        of_shape = histogram(
            shapes, octave_scale(shape, anchors.ratios), description=_medians("aspect ratios of boxes", shapes),
            label="height / width at network input; dashed: anchors", marks=anchors.ratios, name=_ratio,
        )  # fmt: skip
        charts = _figure("Box sizes", of_size) + _figure("Aspect ratios", of_shape)
        return f'{summary}{self._key()}<div class="charts">{charts}</div>\n{self._class_sizes(every, fit)}'

    def positions(self) -> str:
        """Heat maps of box centers."""
        maps = [
            _figure(
                f"Centers in {name}",
                heat_map(split.centers(), f"heat map of the centers of {len(split.boxes):,} boxes"),
            )
            for name, split in self.splits.items()
            if len(split.boxes)
        ]
        if not maps:
            return '<p class="none">No boxes.</p>'
        return (
            "<p>Centers of boxes, with every image stretched to a square. Stronger colors mean more boxes.</p>"
            f'<div class="charts maps">{"".join(maps)}</div>'
        )

    def images(self) -> str:
        """Image sizes and boxes per image."""
        sizes = {name: split.sizes for name, split in self.splits.items() if len(split.sizes)}
        if not sizes:
            return '<p class="none">No readable images.</p>'
        every = np.concatenate(list(sizes.values()))
        unique, counts = np.unique(every, axis=0, return_counts=True)
        height, width = unique[counts.argmax()].tolist()
        network_size = self.rule.network_size(height, width)
        summary = (
            f"<p>{counted(len(every), 'image')} of {counted(len(unique), 'size')}, most often {width}&times;{height} "
            f"({percent(int(counts.max()), len(every))}), resized to {network_size[1]}&times;{network_size[0]} for the "
            "network.</p>"
        )
        per_image = {name: split.per_image() for name, split in self.splits.items() if len(split.sizes)}
        x, edges = integer_scale(max(int(count.max()) for count in per_image.values()))
        charts = _figure(
            "Boxes per image",
            histogram(
                per_image, x, description=_medians("boxes per image", per_image), label="boxes per image", edges=edges
            ),
        ) + _figure(
            "Image sizes",
            bubbles(sizes, f"image sizes; most images have a width of {width} and a height of {height} px"),
        )
        return f'{summary}{self._key()}<div class="charts">{charts}</div>'

    def samples(self, album: Album) -> str:
        """Sample images of every split with their boxes."""
        parts, names = [], ("", *self.checked.classes)
        for name, split in self.splits.items():
            chosen = sample_images(split, _SAMPLES)
            drawn = [
                album.sample(self.checked.readings[name], split, image, names)
                for image in progress_bar(chosen, f"Drawing {name} samples")
            ]
            covered = set(np.concatenate([split.labels[split.rows(i)] for i in chosen]).tolist()) if chosen else set()
            present = set(np.unique(split.labels).tolist())
            missing = [self.checked.classes[c - 1] for c in sorted(present - covered)]
            caption = f"{counted(len(chosen), 'image')} of {len(split.sizes):,}"
            if missing:
                caption += f"; classes not shown: {html_list(missing)}"
            elif present:
                caption += ", covering every class of the split"
            failed = sum(picture is None for picture in drawn)
            caption += f"; {failed} could not be shown" if failed else ""
            pictures = "".join(f"<li>{picture}</li>" for picture in drawn if picture)
            parts.append(
                f'<h3><span class="key {name}">{name}</span></h3><p>{caption}.</p><ul class="mosaic">{pictures}</ul>\n'
            )
        return "".join(parts)

    def _verdict(self) -> tuple[str, str]:
        """CSS class and HTML of the verdict on whether training would start."""
        problems = Counter((p.effect, p.split == "test") for p in self.checked.problems)
        stops = problems[STOPS, False]
        if stops:
            subject = "problem prevents" if stops == 1 else "problems prevent"
            return (
                "bad",
                f"<strong>Training would not start</strong><p>{stops:,} {subject} it, listed first below.</p>",
            )
        done = {"dropped": problems[DROPPED, False], "repaired": problems[REPAIRED, False]}
        parts = [f"{counted(n, 'fault')} would be {effect}" for effect, n in done.items() if n]
        message = f"{' and '.join(parts) or 'Nothing would be dropped or repaired'}."
        evaluation = problems[STOPS, True]
        if evaluation:
            message += f" Evaluation of the test split would not start: {counted(evaluation, 'problem')}."
        return "good", f"<strong>Training would start</strong><p>{message}</p>"

    def _notes(self) -> Iterator[str]:
        """Remarks on the statistics that no problem covers."""
        for name, summary in self.checked.splits.items():
            missing = [c for c, count in summary.boxes_per_class.items() if not count]
            if summary.images and missing:
                names = "every class" if len(missing) == len(self.checked.classes) else html_list(missing)
                yield f'<a href="#classes">Missing</a> from {name}: {names}.'
        counts = {c: n for c, n in self.checked.splits["train"].boxes_per_class.items() if n}
        if counts:
            most, least = max(counts, key=counts.get), min(counts, key=counts.get)
            if counts[most] > _IMBALANCE * counts[least]:
                ratio = round(counts[most] / counts[least])
                yield f"{ratio:,} times as many boxes of {html_list([most])} as of {html_list([least])} in train."
        leaks = sum(problem.kind in LEAKAGE_KINDS for problem in self.checked.problems)
        if leaks:
            yield f'<a href="#problems">Leakage</a>: {counted(leaks, "image")} of one split also in another.'
        difficult = sum(split.difficult for split in self.splits.values())
        if difficult:
            yield f"{counted(difficult, 'box', 'boxes')} marked difficult: neither trained on nor counted as missed."

    def _splits_table(self) -> str:
        rows = []
        for name, summary in self.checked.splits.items():
            per_image = [f"{number:.4g}" for number in summary.boxes_per_image.values()] or ["&ndash;"]
            folders = f'<span class="path">{html_text(summary.image_folder)}<br>{html_text(summary.labels)}</span>'
            numbers = (f"{n:,}" for n in (summary.images, summary.boxes, summary.without_objects))
            rows.append([f'<span class="key {name}">{name}</span>', *numbers, " / ".join(per_image), folders])
        head = ["split", "images", "boxes", "without objects", "boxes per image:<br>min / mean / median / max"]
        return html_table([*head, "images and labels in"], rows, kind="splits")

    def _class_sizes(self, sizes: np.ndarray, fit: np.ndarray) -> str:
        labels = np.concatenate([split.labels for split in self.splits.values()])
        count = len(self.checked.classes) + 1
        total, small, large, unmatched = (
            np.bincount(labels[chosen], minlength=count)
            for chosen in (labels > 0, sizes < self.anchors.small, sizes > self.anchors.large, ~fit)
        )
        quantiles, scale = class_quantiles(sizes, labels, count, _QUANTILES), quantile_scale(sizes, self.anchors.sizes)
        rows = []
        order = np.argsort(-total, kind="stable")[: int((total > 0).sum())]
        for c in order[:_MAX_CLASSES].tolist():
            shares = (_share(int(part[c]), int(total[c])) for part in (small, large, unmatched))
            drawn = quantile_row(scale, quantiles[c].tolist(), self.anchors.sizes)
            name = f'<span class="file">{html_text(self.checked.classes[c - 1], 80)}</span>'
            rows.append([name, f"{total[c]:,}", drawn, f"{quantiles[c, 2]:.0f} px", *shares])
        heading = f"√area: 5, 25, 50, 75, 95%<br>{quantile_heading(scale, self.anchors.sizes)}"
        below, above = f"below {self.anchors.small:g} px", f"above {self.anchors.large:g} px"
        head = ["class", "boxes", heading, "median", below, above, f"no anchor with IoU {_ANCHOR_IOU:g}"]
        more = _and_more(len(order) - _MAX_CLASSES, "classes")
        return f"<h3>By class, all splits</h3>{html_table(head, rows, kind='sizes')}{more}"

    def _images_per_class(self, name: str) -> list[int]:
        classes = self.splits[name].images_of_classes()[1]
        return np.bincount(classes, minlength=len(self.checked.classes) + 1)[1:].tolist()

    def _unknown(self) -> list[str]:
        names = {name: None for summary in self.checked.splits.values() for name in summary.unknown_classes}
        return list(names)[:_MAX_CLASSES]

    def _key(self) -> str:
        keys = "".join(f'<span class="key {name}">{name}</span>' for name in self.splits)
        return f'<p class="legend">{keys}</p>'


def _bar(split: str, boxes: int, images: int, largest: int) -> str:
    if not boxes:
        return '<span class="lacking">none</span>'
    text = f"{boxes:,} <small>in {counted(images, 'image')}</small>"
    return f'<span class="bar {split}" style="width:{100 * boxes / largest:.2f}%"></span><span>{text}</span>'


def _share(part: int, whole: int) -> str:
    return f'<span class="{"much" if part > 0.1 * whole else ""}">{percent(part, whole)}</span>'


def _and_more(number: int, unit: str) -> str:
    return f"<p>and {number:,} more {unit}</p>" if number > 0 else ""


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{title}</figcaption>{chart}</figure>\n"


def _medians(quantity: str, groups: Mapping[str, np.ndarray], unit: str = "") -> str:
    """Text alternative of a histogram."""
    medians = ", ".join(
        f"{name} {np.median(values):.3g}{unit}, from {values.min():.3g} to {values.max():.3g}"
        for name, values in groups.items()
        if len(values)
    )
    return f"histogram of {quantity}; median: {medians}"


def _ratio(value: float) -> str:
    return f"{value:g}" if value >= 1 or value < 0.01 else f"1/{1 / value:.3g}"
