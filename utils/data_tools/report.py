"""The check of a data set as one HTML page that needs nothing else: no network, no scripts, no other files."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data_tools.charts import bubbles, heat_map, histogram, octaves, span, span_heading, span_scale, steps
from utils.data_tools.check import DROPPED, MENDED, STOPS, DataCheck
from utils.data_tools.report_faults import EFFECTS, problems_section
from utils.data_tools.statistics import SplitBoxes, quantiles_of_classes, training_boxes, typical_images
from utils.data_tools.thumbnails import Album
from utils.files import write_text
from utils.labels.anchors import Anchors
from utils.labels.data_config import SPLITS
from utils.loading.size_rule import SizeRule
from utils.progress import progress_bar
from utils.text import counted
from utils.visualize.html import listed, percent, table, text
from utils.visualize.pages import page, tiles

_SAMPLES = 16  # images of a split
_MOST_CLASSES = 300  # rows of a table
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FITS = 0.5  # IoU of a box with an anchor from which the two go together
_UNEVEN = 20  # times as many boxes of one class as of another
_STYLE = Path(__file__).with_suffix(".css")


def write_report(path: Path, checked: DataCheck, rule: SizeRule, *, limit: int = 20) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        checked: what the check found.
        rule: of the training that is planned: at this size boxes meet the anchors.
        limit: places of every kind of problem that are shown with their image, at most 50.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, report_page(checked, rule, limit=limit))


def report_page(checked: DataCheck, rule: SizeRule, *, limit: int = 20) -> str:
    """The HTML of the page; see write_report. It has less than 10 MB, whatever the data set."""
    content = _Page(
        checked, rule, {name: training_boxes(reading, rule) for name, reading in checked.readings.items()}, Anchors()
    )
    album = Album()
    sections: dict[str, tuple[str, Callable[[], str]]] = {
        "problems": ("Problems", lambda: problems_section(checked, album, limit)),
        "classes": ("Classes", content.classes),
        "sizes": ("Boxes and anchors", content.sizes),
        "places": ("Where boxes are", content.places),
        "images": ("Images", content.images),
        "samples": ("Samples", lambda: content.samples(album)),
    }
    drawn = {key: draw() for key, (_, draw) in reversed(sections.items())}  # samples first: the album may get full
    return page(
        f"Check of {Path(checked.data).name}",
        {key: (name, drawn[key]) for key, (name, _) in sections.items()},
        summary=content.summary(),
        under_title=f'<p class="path">{text(checked.data)}</p>',
        styles=[_STYLE],
    )


@dataclass(frozen=True)
class _Page:
    checked: DataCheck
    rule: SizeRule
    splits: Mapping[str, SplitBoxes]
    anchors: Anchors

    def summary(self) -> str:
        """Whether a training would start, and the numbers that matter most."""
        checked = self.checked
        effects = Counter(problem.effect for problem in checked.problems)
        verdict, words = self._verdict()
        counts = {
            "splits": sum(name in checked.splits and bool(checked.splits[name].image_folder) for name in SPLITS),
            "images": sum(split.images for split in checked.splits.values()),
            "boxes": sum(split.boxes for split in checked.splits.values()),
            "classes": len(checked.classes),
        }
        total = {name: f"{number:,}" for name, number in counts.items()}
        states = "".join(
            f'<li class="{effect if effects[effect] else "none"}"><b>{effects[effect]:,}</b>'
            f'<span class="effect {effect}"><span aria-hidden="true">{sign}</span> {name}</span>'
            f"<small>{meaning}</small></li>"
            for effect, (sign, name, meaning) in EFFECTS.items()
        )
        notes = "".join(f"<li>{note}</li>" for note in self._notes())
        return (
            f'<section id="summary" aria-label="Summary">\n<div class="verdict {verdict}"><span aria-hidden="true">'
            f"{'✕' if checked.stops else '✓'}</span><div>{words}</div></div>\n{tiles(total)}"
            f'<h3>Problems, by what a training does about them</h3><ul class="effects">{states}</ul>\n'
            f"{f'<h3>Worth a look</h3><ul class=notes>{notes}</ul>' if notes else ''}\n"
            f"<h3>Splits</h3>{self._splits_table()}</section>\n"
        )

    def classes(self) -> str:
        """Boxes and images of every class, split by split."""
        names = list(self.splits)
        boxes = {name: list(self.checked.splits[name].boxes_per_class.values()) for name in names}
        images = {name: self._images_of_class(name) for name in names}
        most = {name: max(1, *counts, 1) for name, counts in boxes.items()}
        order = sorted(range(len(self.checked.classes)), key=lambda c: -sum(counts[c] for counts in boxes.values()))
        rows = []
        for c in order[:_MOST_CLASSES]:
            bars = [_bar(name, boxes[name][c], images[name][c], most[name]) for name in names]
            rows.append([f'<span class="file">{text(self.checked.classes[c], 80)}</span>', *bars])
        for name in self._unknown():
            counts = [self.checked.splits[split].unknown_classes.get(name, 0) for split in names]
            cells = [f'<span class="lacking">{counted(n, "box", "boxes")}</span>' if n else "" for n in counts]
            rows.append(
                [f'<span class="file">{text(name, 80)}</span> <span class="lacking">not in CLASSES</span>', *cells]
            )
        return (
            "<p>Boxes that a training gets; in each split, the longest bar is its largest class.</p>"
            + table(["class", *(f'<span class="key {name}">{name}</span>' for name in names)], rows, kind="classes")
            + _and_more(len(order) - _MOST_CLASSES, "classes")
        )

    def sizes(self) -> str:
        """Sizes and shapes of boxes in network pixels, against the anchors."""
        sides = {name: split.sides() for name, split in self.splits.items()}
        areas = {name: np.sqrt(each.prod(1)) for name, each in sides.items()}
        shapes = {name: each[:, 1] / each[:, 0] for name, each in sides.items()}
        every, shape = np.concatenate(list(areas.values())), np.concatenate(list(shapes.values()))
        if not len(every):
            return '<p class="none">There are no boxes.</p>'
        anchors = self.anchors
        small, large = int((every < anchors.small).sum()), int((every > anchors.large).sum())
        fit = anchors.best_iou(np.concatenate(list(sides.values()))) >= _FITS
        words = (
            f"<p>Sizes are those that the network sees: images resized to {self.rule}. "
            f"<b>{percent(small, len(every))}</b> of the boxes are smaller than half the smallest anchor "
            f"(below {anchors.small:g} px), <b>{percent(large, len(every))}</b> larger than the largest "
            f"(above {anchors.large:g} px). For <b>{percent(int((~fit).sum()), len(every))}</b> no anchor, "
            f"centered on the box, overlaps it by an IoU of {_FITS:g}.</p>"
        )
        of_size = histogram(
            areas, octaves(every, anchors.sizes), about=_medians("box sizes", areas, " px"),
            label="√area in network pixels; dashed: anchors", marks=anchors.sizes,
        )  # fmt: skip
        of_shape = histogram(
            shapes, octaves(shape, anchors.ratios), about=_medians("aspect ratios of boxes", shapes),
            label="height / width in network pixels; dashed: anchors", marks=anchors.ratios, name=_ratio,
        )  # fmt: skip
        charts = _figure("Box sizes", of_size) + _figure("Aspect ratios", of_shape)
        return f'{words}{self._key()}<div class="charts">{charts}</div>\n{self._sizes_of_classes(every, fit)}'

    def places(self) -> str:
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
            return '<p class="none">There are no boxes.</p>'
        return (
            "<p>Centers of boxes, every image resize_height to a square. The stronger the color, the more.</p>"
            f'<div class="charts maps">{"".join(maps)}</div>'
        )

    def images(self) -> str:
        """Sizes of images, and boxes per image."""
        sizes = {name: split.sizes for name, split in self.splits.items() if len(split.sizes)}
        if not sizes:
            return '<p class="none">There are no images that can be read.</p>'
        every = np.concatenate(list(sizes.values()))
        unique, counts = np.unique(every, axis=0, return_counts=True)
        height, width = unique[counts.argmax()].tolist()
        seen = self.rule.network_size(height, width)
        words = (
            f"<p>{counted(len(every), 'image')} of {counted(len(unique), 'size')}; most often {width}&times;{height} "
            f"({percent(int(counts.max()), len(every))}), which the network sees as {seen[1]}&times;{seen[0]}.</p>"
        )
        per_image = {name: split.per_image() for name, split in self.splits.items() if len(split.sizes)}
        x, edges = steps(max(int(count.max()) for count in per_image.values()))
        charts = _figure(
            "Boxes per image",
            histogram(
                per_image, x, about=_medians("boxes per image", per_image), label="boxes in an image", edges=edges
            ),
        ) + _figure("Image sizes", bubbles(sizes, f"sizes of images; most are {width} wide and {height} high"))
        return f'{words}{self._key()}<div class="charts">{charts}</div>'

    def samples(self, album: Album) -> str:
        """Images of every split with their boxes."""
        parts, names = [], ("", *self.checked.classes)
        for name, split in self.splits.items():
            chosen = typical_images(split, _SAMPLES)
            drawn = [
                album.sample(self.checked.readings[name], split, image, names)
                for image in progress_bar(chosen, f"Drawing {name} samples")
            ]
            shown = set(np.concatenate([split.labels[split.rows(i)] for i in chosen]).tolist()) if chosen else set()
            there = set(np.unique(split.labels).tolist())
            hidden = [self.checked.classes[c - 1] for c in sorted(there - shown)]
            words = f"{counted(len(chosen), 'image')} of {len(split.sizes):,}"
            words += (
                f"; not among them: {listed(hidden)}" if hidden else ", with every class that it has" if there else ""
            )
            lost = sum(picture is None for picture in drawn)
            words += f"; {lost} could not be shown" if lost else ""
            pictures = "".join(f"<li>{picture}</li>" for picture in drawn if picture)
            parts.append(
                f'<h3><span class="key {name}">{name}</span></h3><p>{words}.</p><ul class="mosaic">{pictures}</ul>\n'
            )
        return "".join(parts)

    def _verdict(self) -> tuple[str, str]:
        problems = Counter((p.effect, p.split == "test") for p in self.checked.problems)
        stops = problems[STOPS, False]
        if stops:
            which = "problem stops" if stops == 1 else "problems stop"
            return (
                "bad",
                f"<strong>A training would not start</strong><p>{stops:,} {which} it; they come first below.</p>",
            )
        done = {"left out": problems[DROPPED, False], "mended": problems[MENDED, False]}
        on_the_way = " and ".join(f"{counted(n, 'fault')} would be {what}" for what, n in done.items() if n)
        on_the_way = f"{on_the_way or 'Nothing would be left out or mended'}."
        evaluation = problems[STOPS, True]
        if evaluation:
            on_the_way += f" An evaluation of the test split would not: {counted(evaluation, 'problem')}."
        return "good", f"<strong>A training would start</strong><p>{on_the_way}</p>"

    def _notes(self) -> Iterator[str]:
        """What the numbers say that no problem says."""
        for name, summary in self.checked.splits.items():
            missing = [c for c, count in summary.boxes_per_class.items() if not count]
            if summary.images and missing:
                all_of_them = "every class" if len(missing) == len(self.checked.classes) else listed(missing)
                yield f'<a href="#classes">Missing</a> from {name}: {all_of_them}.'
        counts = {c: n for c, n in self.checked.splits["train"].boxes_per_class.items() if n}
        if counts:
            most, least = max(counts, key=counts.get), min(counts, key=counts.get)
            if counts[most] > _UNEVEN * counts[least]:
                times = round(counts[most] / counts[least])
                yield f"{times:,} times as many boxes of {listed([most])} as of {listed([least])} in train."
        leaks = sum("leakage" in problem.kind for problem in self.checked.problems)
        if leaks:
            yield f'<a href="#problems">Leakage</a>: {counted(leaks, "image")} of one split found again in another.'
        difficult = sum(split.difficult for split in self.splits.values())
        if difficult:
            yield f"{counted(difficult, 'box', 'boxes')} marked difficult: neither trained on nor counted as missed."

    def _splits_table(self) -> str:
        rows = []
        for name, summary in self.checked.splits.items():
            of_image = [f"{number:.4g}" for number in summary.boxes_per_image.values()] or ["&ndash;"]
            folders = f'<span class="path">{text(summary.image_folder)}<br>{text(summary.labels)}</span>'
            numbers = (f"{n:,}" for n in (summary.images, summary.boxes, summary.without_objects))
            rows.append([f'<span class="key {name}">{name}</span>', *numbers, " / ".join(of_image), folders])
        head = ["split", "images", "boxes", "without objects", "boxes per image:<br>least / mean / median / most"]
        return table([*head, "images and labels in"], rows, kind="splits")

    def _sizes_of_classes(self, sizes: np.ndarray, fit: np.ndarray) -> str:
        labels = np.concatenate([split.labels for split in self.splits.values()])
        count = len(self.checked.classes) + 1
        total, small, large, unmet = (
            np.bincount(labels[chosen], minlength=count)
            for chosen in (labels > 0, sizes < self.anchors.small, sizes > self.anchors.large, ~fit)
        )
        quantiles, scale = quantiles_of_classes(sizes, labels, count, _QUANTILES), span_scale(sizes, self.anchors.sizes)
        rows = []
        order = np.argsort(-total, kind="stable")[: int((total > 0).sum())]
        for c in order[:_MOST_CLASSES].tolist():
            shares = (_share(int(part[c]), int(total[c])) for part in (small, large, unmet))
            drawn = span(scale, quantiles[c].tolist(), self.anchors.sizes)
            name = f'<span class="file">{text(self.checked.classes[c - 1], 80)}</span>'
            rows.append([name, f"{total[c]:,}", drawn, f"{quantiles[c, 2]:.0f} px", *shares])
        heading = f"√area: 5, 25, 50, 75, 95%<br>{span_heading(scale, self.anchors.sizes)}"
        small_words, large_words = f"below {self.anchors.small:g} px", f"above {self.anchors.large:g} px"
        head = ["class", "boxes", heading, "median", small_words, large_words, f"no anchor with IoU {_FITS:g}"]
        more = _and_more(len(order) - _MOST_CLASSES, "classes")
        return f"<h3>Class by class, all splits together</h3>{table(head, rows, kind='sizes')}{more}"

    def _images_of_class(self, name: str) -> list[int]:
        classes = self.splits[name].images_of_classes()[1]
        return np.bincount(classes, minlength=len(self.checked.classes) + 1)[1:].tolist()

    def _unknown(self) -> list[str]:
        every = {name: None for summary in self.checked.splits.values() for name in summary.unknown_classes}
        return list(every)[:_MOST_CLASSES]

    def _key(self) -> str:
        keys = "".join(f'<span class="key {name}">{name}</span>' for name in self.splits)
        return f'<p class="legend">{keys}</p>'


def _bar(split: str, boxes: int, images: int, most: int) -> str:
    if not boxes:
        return '<span class="lacking">none</span>'
    words = f"{boxes:,} <small>in {counted(images, 'image')}</small>"
    return f'<span class="bar {split}" style="width:{100 * boxes / most:.2f}%"></span><span>{words}</span>'


def _share(part: int, whole: int) -> str:
    return f'<span class="{"much" if part > 0.1 * whole else ""}">{percent(part, whole)}</span>'


def _and_more(number: int, what: str) -> str:
    return f"<p>and {number:,} more {what}</p>" if number > 0 else ""


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{title}</figcaption>{chart}</figure>\n"


def _medians(what: str, groups: Mapping[str, np.ndarray], unit: str = "") -> str:
    """A chart in words."""
    of = ", ".join(
        f"{name} {np.median(values):.3g}{unit}, from {values.min():.3g} to {values.max():.3g}"
        for name, values in groups.items()
        if len(values)
    )
    return f"histogram of {what}; median: {of}"


def _ratio(value: float) -> str:
    return f"{value:g}" if value >= 1 or value < 0.01 else f"1/{1 / value:.3g}"
