"""The check of a data set: everything that is wrong with it, found in one go, and what a training does about it."""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.boxes import CLIPPED, NO_AREA, NOT_FINITE, OUTSIDE, SWAPPED
from utils.data_config import SPLITS, DataConfig
from utils.errors import DataError
from utils.file_names import Files, find_files
from utils.image_notes import ALPHA, CMYK, EXIF, FRAMES, GREY, HUGE, SIXTEEN_BITS, image_notes
from utils.images import is_image_name, read_image
from utils.label_index import SplitFiles, SplitReading, find_split, nearest_class, read_files
from utils.label_readers import READERS, UNKNOWN
from utils.near_duplicates import fingerprints, near_pairs, same_bytes
from utils.progress import bar

STOPS, DROPPED, MENDED, NOTHING = "stops", "dropped", "mended", "nothing"

_SPLIT = "splits that cannot be opened"
_IMAGE = "images that cannot be read"
_LABEL = "label files that cannot be read"
_CLASS = "label files with a class that CLASSES lacks"
_NUMBER = "label files with a class number that CLASSES lacks"
_ROW_DROPPED = "entries of label files that make no sense"
_ROW_MENDED = "entries of label files read in part"
_NO_IMAGE = "labels without image"
_NOT_THERE = "listed images that are not there"
_FORMAT = "image files of a format that is not read"
_COPY_ACROSS = "images that another split has too (leakage)"
_NEAR_ACROSS = "images that look like one of another split (leakage)"
_SIZE = "image sizes in label files that are not the image's"
_SHARED = "images that share one label file"
_TWO_LABELS = "label files of an image that has another"
_NO_LABELS = "images without labels, taken as without objects"
_REPEATED = "boxes that are there twice"
_COPY = "images that are there twice"
_NEAR = "images that look the same"
_BOXES = {
    NOT_FINITE: "boxes that are no numbers",
    NO_AREA: "boxes without area",
    OUTSIDE: "boxes outside their image",
    SWAPPED: "boxes with reversed corners",
    CLIPPED: "boxes that leave their image",
}
KINDS: Mapping[str, str] = {  # kind -> what a training does about it; most serious first
    **dict.fromkeys((_SPLIT, _CLASS, _NUMBER), STOPS),
    **dict.fromkeys((_IMAGE, _LABEL), DROPPED),
    **dict.fromkeys((_BOXES[NOT_FINITE], _BOXES[NO_AREA], _BOXES[OUTSIDE], _ROW_DROPPED), DROPPED),
    **dict.fromkeys((_NO_IMAGE, _NOT_THERE, _FORMAT), DROPPED),
    **dict.fromkeys((_BOXES[SWAPPED], _BOXES[CLIPPED], _ROW_MENDED), MENDED),
    **dict.fromkeys((_COPY_ACROSS, _NEAR_ACROSS, _SIZE, _SHARED, _TWO_LABELS, _NO_LABELS, _REPEATED), NOTHING),
    **dict.fromkeys((_COPY, _NEAR, EXIF, SIXTEEN_BITS, GREY, CMYK, ALPHA, FRAMES, HUGE), NOTHING),
}
_TRAINED_ON = ("train", "valid")  # a training opens these
_OTHER_FORMATS = frozenset({".avif", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".tga"})
_SAME = 0.5  # px between the corners of two boxes
_BOX_NEIGHBOURS = 100  # boxes of an image and class, from left to right, that one is compared with


class Problem(NamedTuple):
    """Something wrong, or worth to know, in one place."""

    split: str
    kind: str  # one of KINDS
    place: str  # path of the image, label file or list
    what: str  # "" where the kind says all

    @property
    def effect(self) -> str:
        """What a training does about it: STOPS, DROPPED, MENDED or NOTHING."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return ": ".join(filter(None, (Path(self.place).name, self.what)))


@dataclass(frozen=True)
class SplitSummary:
    """The numbers of one split as a training would use it."""

    images: int  # that can be read, with their labels
    boxes: int
    boxes_per_class: dict[str, int]
    boxes_per_image: dict[str, float]  # least, mean, median, most; empty without images
    without_objects: int  # images
    unknown_classes: dict[str, int]  # class that CLASSES lacks, as written -> its boxes
    image_folder: str
    labels: str

    def lines(self, name: str) -> list[str]:
        """As text."""
        per_class = ", ".join(f"{key} {count}" for key, count in self.boxes_per_class.items())
        lines = [
            f"{name}: {self.images} images, {self.boxes} boxes ({per_class}); "
            f"{self.without_objects} images without objects",
            f"  images in {self.image_folder}, labels in {self.labels}",
        ]
        if self.boxes_per_image:
            numbers = ", ".join(f"{key} {count:.4g}" for key, count in self.boxes_per_image.items())
            lines.append(f"  boxes per image: {numbers}")
        return lines


@dataclass(frozen=True)
class DataCheck:
    """What the check of a data set found."""

    data: str  # path of the YAML
    label_type: str
    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]
    problems: list[Problem]  # by split, most serious first
    readings: Mapping[str, SplitReading] = field(repr=False)  # what was read, for pictures of it

    @property
    def stops(self) -> bool:
        """Whether a training would refuse to start, or end at an image that cannot be decoded."""
        return any(problem.effect == STOPS and problem.split in _TRAINED_ON for problem in self.problems)

    def lines(self, limit: int | None = 20) -> list[str]:
        """Text to print: every kind of problem with its count and the first `limit` places (None: all of them)."""
        found: dict[str, dict[str, list[Problem]]] = {name: defaultdict(list) for name in self.splits}
        for problem in self.problems:
            found[problem.split][problem.kind].append(problem)
        lines = []
        for name, summary in self.splits.items():
            lines.extend(summary.lines(name))
            lines.extend(self._lines_of_classes(summary))
            for kind, problems in found[name].items():
                lines.append(f"  {KINDS[kind]}: {len(problems)} {kind}")
                shown = problems[:limit]
                lines.extend(f"    {problem}" for problem in shown)
                if len(shown) < len(problems):
                    lines.append(f"    and {len(problems) - len(shown)} more")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values that JSON knows."""
        return {
            "data": self.data,
            "label_type": self.label_type,
            "classes": list(self.classes),
            "stops": self.stops,
            "splits": {name: asdict(summary) for name, summary in self.splits.items()},
            "problems": [{**problem._asdict(), "effect": problem.effect} for problem in self.problems],
        }

    def _lines_of_classes(self, summary: SplitSummary) -> Iterator[str]:
        for name, count in summary.unknown_classes.items():
            yield f"  {count} boxes of {name}, which CLASSES lacks{_hint(name, self.classes)}"


def check_data(config: DataConfig, label_type: str, *, near_duplicates: bool = True) -> DataCheck:
    """Go through every split of a data set, whatever is wrong with it.

    Labels and headers are read as a training reads them. With `near_duplicates` every image is decoded too, reduced:
    that finds copies, also across splits, and images that a training cannot decode.
    """
    summaries, readings, problems = {}, {}, []
    for name in SPLITS:
        if name not in config.splits and name not in _TRAINED_ON:
            continue
        files, faults = _find(config, name, label_type)
        problems += [Problem(name, _SPLIT, str(config.path), fault) for fault in faults]
        reading = readings[name] = read_files(files, f"Reading {name} labels")
        mended, keep, box_problems = reading.mended()
        summaries[name] = _summary(config, name, reading, keep)
        if name in config.splits:
            place = _Places(name, config.splits[name].labels, label_type)
            problems += _file_problems(place, reading)
            problems += _class_problems(place, reading, config.classes)
            problems += _box_problems(place, reading, config.classes, box_problems)
            problems += _repeated(place, reading, mended, keep & (reading.labels != UNKNOWN))
            problems += _image_problems(name, reading)
    problems += _shared_labels(config, readings)
    problems += _copies(readings, near_duplicates)
    rank = {key: number for number, key in enumerate((*SPLITS, *KINDS))}
    problems.sort(key=lambda problem: (rank[problem.split], rank[problem.kind], problem.place))
    return DataCheck(str(config.path), label_type, config.classes[1:], summaries, problems, readings)


class _Places(NamedTuple):
    """Names the label files of one split."""

    split: str
    labels: Path
    label_type: str

    def problem(self, kind: str, label_name: str, what: str = "") -> Problem:
        folder = self.labels.parent if self.labels.is_file() else self.labels
        return Problem(self.split, kind, f"{folder}/{label_name}", what)


def _find(config: DataConfig, name: str, label_type: str) -> tuple[SplitFiles, list[str]]:
    """The files of a split, and what is wrong; with a bad list all images count, with bad labels they have none."""
    faults: dict[str, None] = {}  # an ordered set
    split = config.splits.get(name)
    for tried in dict.fromkeys((split, replace(split, list=None) if split else None)):
        splits = {**config.splits, name: tried} if tried else config.splits
        try:
            return find_split(replace(config, splits=splits), name, label_type), list(faults)
        except (DataError, OSError) as error:
            faults[str(error)] = None
    folder = split.images if split else Path()
    try:
        images = find_files(folder, is_image_name) if split else []
    except OSError:
        images = []
    return SplitFiles(Files(folder, images), None, np.full(len(images), -1)), list(faults)


def _summary(config: DataConfig, name: str, reading: SplitReading, keep: np.ndarray) -> SplitSummary:
    keep = keep & (reading.labels != UNKNOWN)
    per_class = np.bincount(reading.labels[keep], minlength=len(config.classes)).tolist()
    per_image = np.bincount(reading.image_of_box[keep], minlength=len(reading.images)).tolist()
    statistic = {"least": min, "mean": statistics.mean, "median": statistics.median, "most": max}
    split = config.splits.get(name)
    return SplitSummary(
        images=len(reading.images),
        boxes=int(keep.sum()),
        boxes_per_class=dict(list(zip(config.classes, per_class, strict=True))[1:]),
        boxes_per_image={key: float(of(per_image)) for key, of in statistic.items()} if per_image else {},
        without_objects=per_image.count(0),
        unknown_classes={key: len(images) for key, images in reading.unknown.items()},
        image_folder=str(split.images) if split else "",
        labels=str(split.labels) if split else "",
    )


def _hint(unknown: str, classes: Sequence[str]) -> str:
    near = nearest_class(unknown, classes)
    return f"; did you mean {near!r}?" if near else ""


def _file_problems(place: _Places, reading: SplitReading) -> Iterator[Problem]:
    """What is wrong with whole files, and entries of label files."""
    files, names = reading.files, reading.label_names
    for image, label_name, message in reading.broken:
        what = message.removeprefix(f"{place.labels / label_name if label_name else image}:")
        what = f"line {what}" if what[:1].isdigit() else what.strip()
        if label_name:
            yield place.problem(_LABEL, label_name, what)
        else:
            yield Problem(place.split, _IMAGE, str(image), what)
    for note in files.labels.notes if files.labels else ():
        yield Problem(place.split, _ROW_DROPPED, str(place.labels), note)
    for image, note in reading.notes:
        yield place.problem(_ROW_DROPPED if note.endswith("dropped") else _ROW_MENDED, names[image], note)
    for name in files.without_image:  # of files in a folder, or of images in COCO's json
        is_file = place.label_type in READERS
        yield place.problem(_NO_IMAGE, name) if is_file else Problem(place.split, _NO_IMAGE, str(place.labels), name)
    for entry in files.not_there:
        yield Problem(place.split, _NOT_THERE, *entry.split(": ", 1))
    for image, name in zip(reading.images, names, strict=True):
        if name is None and files.labels:
            yield Problem(place.split, _NO_LABELS, str(image), "")
    for image, (height, width) in reading.claimed.items():
        own = f"{reading.sizes[image, 1]}x{reading.sizes[image, 0]}"
        yield place.problem(_SIZE, names[image], f"{width}x{height}, {reading.images[image].name} is {own}")
    folder = files.images.folder
    for name in find_files(folder, _is_of_another_format) if len(files.images) else ():
        yield Problem(place.split, _FORMAT, str(folder / name), "save it as .jpg or .png")
    for name in files.labels.doubles if files.labels else ():
        yield place.problem(_TWO_LABELS, name, "only the other is read")


def _is_of_another_format(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _OTHER_FORMATS


def _class_problems(place: _Places, reading: SplitReading, classes: Sequence[str]) -> Iterator[Problem]:
    for name, images in reading.unknown.items():
        kind = _NUMBER if name.startswith("class ") else _CLASS
        for image, count in Counter(images).items():
            yield place.problem(kind, reading.label_names[image], f"{count} of {name}{_hint(name, classes)}")


def _box_problems(
    place: _Places, reading: SplitReading, classes: Sequence[str], problems: np.ndarray
) -> Iterator[Problem]:
    """One for every box that is mended or dropped."""
    for box in np.flatnonzero(problems != "").tolist():
        label, corners = int(reading.labels[box]), " ".join(f"{corner:g}" for corner in reading.boxes[box])
        name = "" if label == UNKNOWN else f"{classes[label]} "
        yield _of_box(place, reading, _BOXES[problems[box]], box, f" ({name}{corners})")


def _repeated(place: _Places, reading: SplitReading, boxes: np.ndarray, wanted: np.ndarray) -> Iterator[Problem]:
    rows = np.flatnonzero(wanted)
    twins = repeated_boxes(reading.image_of_box[rows], reading.labels[rows], boxes[rows])
    for other in np.flatnonzero(twins >= 0).tolist():
        first = _number_in_image(reading, int(rows[twins[other]]))
        yield _of_box(place, reading, _REPEATED, int(rows[other]), f" is box {first} again")


def _of_box(place: _Places, reading: SplitReading, kind: str, box: int, what: str) -> Problem:
    name = reading.label_names[reading.image_of_box[box]]
    return place.problem(kind, name, f"box {_number_in_image(reading, box)}{what}")


def _number_in_image(reading: SplitReading, box: int) -> int:
    """From 1, among the boxes that its label file has."""
    return box - int(np.searchsorted(reading.image_of_box, reading.image_of_box[box])) + 1


def repeated_boxes(images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) int64: for every box another, before it, of its image and class whose corners are as good as its; else -1.

    Args:
        images: (M,) the image of every box.
        labels: (M,)
        boxes: (M, 4) x1 y1 x2 y2 in pixels.
    """
    twin = np.full(len(boxes), -1)
    order = np.lexsort((boxes[:, 0], labels, images))
    at = np.arange(len(order))
    for step in range(1, _BOX_NEIGHBOURS + 1):
        at = at[at + step < len(order)]
        one, other = order[at], order[at + step]
        near = (images[one] == images[other]) & (labels[one] == labels[other])
        near &= boxes[other, 0] - boxes[one, 0] <= _SAME
        at, one, other = at[near], one[near], other[near]
        if not len(at):
            break
        same = (np.abs(boxes[one] - boxes[other]) <= _SAME).all(1)
        twin[np.maximum(one, other)[same]] = np.minimum(one, other)[same]
    return twin


def _image_problems(name: str, reading: SplitReading) -> Iterator[Problem]:
    for image, path in enumerate(bar(reading.images, f"Looking at {name} images")):
        for kind, what in image_notes(path, as_stored=bool(reading.as_stored[image])):
            yield Problem(name, kind, str(path), what)


def _shared_labels(config: DataConfig, readings: Mapping[str, SplitReading]) -> Iterator[Problem]:
    """Images of one stem, within a split or in two whose labels are in one folder."""
    first: dict[tuple[Path, str], Path] = {}
    for name, reading in readings.items():
        labels = config.splits[name].labels.resolve() if reading.files.labels else Path()
        for path, label_name in zip(reading.images, reading.label_names, strict=True):
            if label_name is not None:
                other = first.setdefault((labels, label_name), path)
                if other != path:
                    yield Problem(name, _SHARED, str(path), f"{label_name} is that of {other} too")


def _copies(readings: Mapping[str, SplitReading], near: bool) -> Iterator[Problem]:
    """Images that are there more than once, each named once a split that has it before; and what cannot be decoded."""
    paths = [path for reading in readings.values() for path in reading.images]
    split_of = [name for name, reading in readings.items() for _ in reading.images]

    def problem(first: int, second: int, across: str, within: str) -> Problem:
        name, other = split_of[second], split_of[first]
        kind, where = (within, "") if name == other else (across, f" of {other}")
        return Problem(name, kind, str(paths[second]), f"the same as {paths[first].name}{where}")

    content = np.arange(len(paths))  # the same number for the same bytes
    for group in same_bytes(paths):
        first_in: dict[str, int] = {}
        for second in group:
            content[second] = group[0]
            yield from (problem(first, second, _COPY_ACROSS, _COPY) for first in first_in.values())
            first_in.setdefault(split_of[second], second)
    if not near or not paths:
        return
    found = fingerprints(paths, np.concatenate([reading.sizes for reading in readings.values()]))
    pairs = near_pairs(found)
    pairs = pairs[content[pairs[:, 0]] != content[pairs[:, 1]]]
    number_of = np.repeat(np.arange(len(readings)), [len(reading.images) for reading in readings.values()])
    once = np.unique(pairs[:, 1] * len(readings) + number_of[pairs[:, 0]], return_index=True)[1]
    for first, second in pairs[once].tolist():
        yield problem(first, second, _NEAR_ACROSS, _NEAR)
    for image in np.flatnonzero(~found.decoded).tolist():
        yield from _undecodable(split_of[image], paths[image])


def _undecodable(name: str, path: Path) -> Iterator[Problem]:
    """What a training would say of an image that could not be decoded, reduced."""
    try:
        read_image(path)
    except DataError as error:
        yield Problem(name, _IMAGE, str(path), str(error).removeprefix(f"{path}: "))
