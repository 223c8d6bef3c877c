"""The check of a data set: everything that is wrong with it, found in one go, and what a training does about it."""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.errors import DataError
from utils.images.file_lists import FileList, find_files
from utils.images.image_files import is_image_name, read_image
from utils.images.near_duplicates import fingerprints, near_pairs, same_bytes
from utils.images.notes import ALPHA, CMYK, EXIF, FRAMES, GRAY, HUGE, SIXTEEN_BITS, image_notes
from utils.labels.boxes import CLIPPED, NO_AREA, NOT_FINITE, OUTSIDE, SWAPPED, repeated_boxes
from utils.labels.data_config import SPLITS, DataConfig, Split
from utils.labels.index import SplitContent, SplitFiles, class_hints, find_split, read_files
from utils.labels.readers import READERS, UNKNOWN
from utils.progress import progress_bar

STOPS, DROPPED, MENDED, NOTHING = "stops", "dropped", "mended", "nothing"

BAD_SPLIT = "splits that cannot be opened"
BAD_IMAGE = "images that cannot be read"
BAD_LABELS = "label files that cannot be read"
CLASS = "label files with a class that CLASSES lacks"
NUMBER = "label files with a class number that CLASSES lacks"
CLASS_DROPPED = "label files with boxes of a class that CLASSES lacks"  # with --drop-unknown
ROW_DROPPED = "entries of label files that make no sense"
ROW_MENDED = "entries of label files read in part"
NO_IMAGE = "labels without image"
NOT_THERE = "listed images that are not there"
NOT_LISTED = "images that COCO's json does not list"
FORMAT = "image files of a format that is not read"
COPY_ACROSS = "images that another split has too (leakage)"
NEAR_ACROSS = "images that look like one of another split (leakage)"
SIZE = "image sizes in label files that are not the image's"
SHARED = "images that share one label file"
TWO_LABELS = "label files of an image that has another"
NO_LABELS = "images without labels, taken as without objects"
REPEATED = "boxes that are there twice"
COPY = "images that are there twice"
NEAR = "images that look the same"
BOXES = {
    NOT_FINITE: "boxes that are no numbers",
    NO_AREA: "boxes without area",
    OUTSIDE: "boxes outside their image",
    SWAPPED: "boxes with reversed corners",
    CLIPPED: "boxes that leave their image",
}
KINDS: Mapping[str, str] = {  # kind -> what a training does about it; most serious first
    **dict.fromkeys((BAD_SPLIT, CLASS, NUMBER), STOPS),
    **dict.fromkeys((BAD_IMAGE, BAD_LABELS, CLASS_DROPPED), DROPPED),
    **dict.fromkeys((BOXES[NOT_FINITE], BOXES[NO_AREA], BOXES[OUTSIDE], ROW_DROPPED), DROPPED),
    **dict.fromkeys((NO_IMAGE, NOT_THERE, NOT_LISTED, FORMAT), DROPPED),
    **dict.fromkeys((BOXES[SWAPPED], BOXES[CLIPPED], ROW_MENDED), MENDED),
    **dict.fromkeys((COPY_ACROSS, NEAR_ACROSS, SIZE, SHARED, TWO_LABELS, NO_LABELS, REPEATED), NOTHING),
    **dict.fromkeys((COPY, NEAR, EXIF, SIXTEEN_BITS, GRAY, CMYK, ALPHA, FRAMES, HUGE), NOTHING),
}
_TRAINED_ON = ("train", "valid")  # a training opens these
_OTHER_FORMATS = frozenset({".avif", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".tga"})


class Problem(NamedTuple):
    """Something wrong, or worth to know, in one place."""

    split: str
    kind: str  # one of KINDS
    place: str  # path of the image, label file or list
    what: str  # "" where the kind says all
    name: str = ""  # the place below the split's folder, "" for its last part

    @property
    def effect(self) -> str:
        """What a training does about it: STOPS, DROPPED, MENDED or NOTHING."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.name or Path(self.place).name, self.what)))


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
    readings: Mapping[str, SplitContent] = field(repr=False)  # what was read, for pictures of it

    @property
    def stops(self) -> bool:
        """Whether a training would refuse to start."""
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
        hints = class_hints(summary.unknown_classes, self.classes)
        for name, count in summary.unknown_classes.items():
            yield f"  {count} boxes of {name}, which CLASSES lacks{hints[name]}"


def check_data(
    config: DataConfig, label_type: str, *, drop_unknown: bool = False, near_duplicates: bool = True
) -> DataCheck:
    """Go through every split of a data set, whatever is wrong with it.

    Labels and headers are read as a training reads them.

    Args:
        drop_unknown: the training would leave out boxes of classes that CLASSES lacks, see open_index.
        near_duplicates: decode every image too, reduced: that finds copies, also across splits, and images that a
            training cannot decode.
    """
    summaries, readings, problems = {}, {}, []
    for name in SPLITS:
        if name not in config.splits and name not in _TRAINED_ON:
            continue
        files, faults = _find(config, name, label_type)
        problems += [Problem(name, BAD_SPLIT, str(config.path), fault) for fault in faults]
        reading = readings[name] = read_files(files, f"Reading {name} labels")
        mended, keep, box_problems = reading.repaired_boxes()
        summaries[name] = _summary(config, name, reading, keep)
        if name in config.splits:
            place = _Places(name, config.splits[name], label_type)
            problems += _file_problems(place, reading)
            problems += _class_problems(place, reading, config.classes, drop_unknown=drop_unknown)
            problems += _box_problems(place, reading, config.classes, box_problems)
            problems += _repeated(place, reading, mended, keep & (reading.labels != UNKNOWN))
            problems += _image_problems(place, reading)
    places = {name: _Places(name, config.splits[name], label_type) for name in readings if name in config.splits}
    problems += _shared_labels(places, readings)
    problems += _copies(places, readings, near_duplicates)
    rank = {key: number for number, key in enumerate((*SPLITS, *KINDS))}
    problems.sort(key=lambda problem: (rank[problem.split], rank[problem.kind], problem.place))
    return DataCheck(str(config.path), label_type, config.classes[1:], summaries, problems, readings)


class _Places(NamedTuple):
    """Names the files of one split."""

    split: str
    folders: Split
    label_type: str

    def of_labels(self, kind: str, name: str, what: str = "") -> Problem:
        """Of the label file of this name, or in COCO's json of this image."""
        labels = self.folders.labels
        folder = labels.parent if labels.is_file() else labels
        return Problem(self.split, kind, f"{folder}/{name}", what, name)

    def of_image(self, kind: str, name: str, what: str = "") -> Problem:
        """Of the image of this name."""
        return Problem(self.split, kind, str(self.folders.images / name), what, name)

    def of_all_labels(self, kind: str, what: str) -> Problem:
        """Of the labels as a whole."""
        return Problem(self.split, kind, str(self.folders.labels), what)


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
    return SplitFiles(FileList(folder, images), None, np.full(len(images), -1)), list(faults)


def _summary(config: DataConfig, name: str, reading: SplitContent, keep: np.ndarray) -> SplitSummary:
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


def _file_problems(place: _Places, reading: SplitContent) -> Iterator[Problem]:
    """What is wrong with whole files, and entries of label files."""
    files, names = reading.files, reading.label_names
    for image, label_name, message in reading.unreadable:
        what = message.removeprefix(f"{place.folders.labels / label_name if label_name else image}:")
        what = f"line {what}" if what[:1].isdigit() else what.strip()
        if label_name:
            yield place.of_labels(BAD_LABELS, label_name, what)
        else:
            yield place.of_image(BAD_IMAGE, image.relative_to(files.images.folder).as_posix(), what)
    for note in files.labels.notes if files.labels else ():
        yield place.of_all_labels(ROW_DROPPED, note)
    for image, note in reading.notes:
        yield place.of_labels(ROW_DROPPED if note.endswith("dropped") else ROW_MENDED, names[image], note)
    for name in files.labels_without_image:  # of files in a folder, or of images in COCO's json
        is_file = place.label_type in READERS
        yield place.of_labels(NO_IMAGE, name) if is_file else place.of_all_labels(NO_IMAGE, name)
    for entry in files.missing_images:
        yield Problem(place.split, NOT_THERE, *entry.split(": ", 1))
    for name in files.unlisted_images:
        yield Problem(place.split, NOT_LISTED, str(files.images.folder / name), "", name)
    for image, name in enumerate(names):
        if name is None and files.labels:
            yield place.of_image(NO_LABELS, reading.images.names[image])
    for image, (height, width) in reading.claimed.items():
        own = f"{reading.sizes[image, 1]}x{reading.sizes[image, 0]}"
        yield place.of_labels(SIZE, names[image], f"{width}x{height}, {reading.images.names[image]} is {own}")
    for name in find_files(files.images.folder, _is_of_another_format) if len(files.images) else ():
        yield place.of_image(FORMAT, name, "save it as .jpg or .png")
    for name in files.labels.duplicates if files.labels else ():
        yield place.of_labels(TWO_LABELS, name, "only the other is read")


def _is_of_another_format(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _OTHER_FORMATS


def _class_problems(
    place: _Places, reading: SplitContent, classes: Sequence[str], *, drop_unknown: bool
) -> Iterator[Problem]:
    hints = class_hints(reading.unknown, classes)
    for name, images in reading.unknown.items():
        kind = CLASS_DROPPED if drop_unknown else NUMBER if name.startswith("class ") else CLASS
        for image, count in Counter(images).items():
            yield place.of_labels(kind, reading.label_names[image], f"{count} of {name}{hints[name]}")


def _box_problems(
    place: _Places, reading: SplitContent, classes: Sequence[str], problems: np.ndarray
) -> Iterator[Problem]:
    """One for every box that is mended or dropped."""
    for box in np.flatnonzero(problems != "").tolist():
        label, corners = int(reading.labels[box]), " ".join(f"{corner:g}" for corner in reading.boxes[box])
        name = "" if label == UNKNOWN else f"{classes[label]} "
        yield _of_box(place, reading, BOXES[problems[box]], box, f" ({name}{corners})")


def _repeated(place: _Places, reading: SplitContent, boxes: np.ndarray, wanted: np.ndarray) -> Iterator[Problem]:
    rows = np.flatnonzero(wanted)
    twins = repeated_boxes(reading.image_of_box[rows], reading.labels[rows], boxes[rows])
    for other in np.flatnonzero(twins >= 0).tolist():
        first = _number_in_image(reading, int(rows[twins[other]]))
        yield _of_box(place, reading, REPEATED, int(rows[other]), f" is box {first} again")


def _of_box(place: _Places, reading: SplitContent, kind: str, box: int, what: str) -> Problem:
    name = reading.label_names[reading.image_of_box[box]]
    return place.of_labels(kind, name, f"box {_number_in_image(reading, box)}{what}")


def _number_in_image(reading: SplitContent, box: int) -> int:
    """From 1, among the boxes that its label file has."""
    return box - int(np.searchsorted(reading.image_of_box, reading.image_of_box[box])) + 1


def _image_problems(place: _Places, reading: SplitContent) -> Iterator[Problem]:
    for image, path in enumerate(progress_bar(reading.images, f"Looking at {place.split} images")):
        for kind, what in image_notes(path, as_stored=bool(reading.as_stored[image])):
            yield place.of_image(kind, reading.images.names[image], what)


def _shared_labels(places: Mapping[str, _Places], readings: Mapping[str, SplitContent]) -> Iterator[Problem]:
    """Images of one stem, within a split or in two whose labels are in one folder."""
    first: dict[tuple[Path, str], Path] = {}
    for name, place in places.items():
        labels, reading = place.folders.labels.resolve(), readings[name]
        for image, path, label_name in zip(reading.images.names, reading.images, reading.label_names, strict=True):
            if label_name is not None:
                other = first.setdefault((labels, label_name), path)
                if other != path:
                    yield place.of_image(SHARED, image, f"{label_name} is that of {other} too")


def _copies(places: Mapping[str, _Places], readings: Mapping[str, SplitContent], near: bool) -> Iterator[Problem]:
    """Images that are there more than once, each named once a split that has it before; and what cannot be decoded."""
    paths = [path for name in places for path in readings[name].images]
    found_at = [(name, image) for name in places for image in range(len(readings[name].images))]

    def problem(first: int, second: int, across: str, within: str) -> Problem:
        (other, twin), (name, image) = found_at[first], found_at[second]
        kind, where = (within, "") if name == other else (across, f" of {other}")
        twin_name = readings[other].images.names[twin]
        return places[name].of_image(kind, readings[name].images.names[image], f"the same as {twin_name}{where}")

    content = np.arange(len(paths))  # the same number for the same bytes
    for group in same_bytes(paths):
        first_in: dict[str, int] = {}
        for second in group:
            content[second] = group[0]
            yield from (problem(first, second, COPY_ACROSS, COPY) for first in first_in.values())
            first_in.setdefault(found_at[second][0], second)
    if not near or not paths:
        return
    found = fingerprints(paths, np.concatenate([readings[name].sizes for name in places]))
    pairs = near_pairs(found)
    pairs = pairs[content[pairs[:, 0]] != content[pairs[:, 1]]]
    number_of = np.repeat(np.arange(len(places)), [len(readings[name].images) for name in places])
    once = np.unique(pairs[:, 1] * len(places) + number_of[pairs[:, 0]], return_index=True)[1]
    for first, second in pairs[once].tolist():
        yield problem(first, second, NEAR_ACROSS, NEAR)
    for number in np.flatnonzero(~found.decoded).tolist():
        name, image = found_at[number]
        yield from _undecodable(places[name], readings[name].images.names[image], paths[number])


def _undecodable(place: _Places, name: str, path: Path) -> Iterator[Problem]:
    """What a training would say of an image that could not be decoded, reduced."""
    try:
        read_image(path)
    except DataError as error:
        yield place.of_image(BAD_IMAGE, name, str(error).removeprefix(f"{path}: "))
