"""Check of a data set: all problems in one pass, each with its effect on a training."""

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
from utils.text import counted

STOPS, DROPPED, REPAIRED, KEPT = "stops", "dropped", "mended", "nothing"  # "effect" of a problem in the JSON
EFFECT_NAMES: Mapping[str, str] = {  # in texts
    STOPS: "stops training", DROPPED: "dropped", REPAIRED: "repaired", KEPT: "kept as is",
}  # fmt: skip

BAD_SPLIT = "splits that cannot be opened"
BAD_IMAGE = "unreadable images"
BAD_LABELS = "unreadable label files"
UNKNOWN_CLASS = "label files with a class missing from CLASSES"
UNKNOWN_NUMBER = "label files with a class number outside CLASSES"
UNKNOWN_DROPPED = "label files with boxes of a class missing from CLASSES"  # with --drop-unknown
ROW_DROPPED = "invalid entries of label files"
ROW_REPAIRED = "partly invalid entries of label files"
NO_IMAGE = "labels without an image"
NOT_FOUND = "listed images that do not exist"
NOT_LISTED = "images not listed in the COCO JSON file"
UNSUPPORTED_FORMAT = "image files of an unsupported format"
DUPLICATE_ACROSS = "duplicate images across splits (leakage)"
NEAR_ACROSS = "near-duplicate images across splits (leakage)"
WRONG_SIZE = "wrong image sizes in label files"
SHARED_LABELS = "images that share a label file"
SECOND_LABELS = "second label files of an image"
NO_LABELS = "images without labels, used as images without objects"
DUPLICATE_BOX = "duplicate boxes"
DUPLICATE_IMAGE = "duplicate images"
NEAR_DUPLICATE = "near-duplicate images"
BOXES = {
    NOT_FINITE: "boxes with NaN or infinite coordinates",
    NO_AREA: "boxes without area",
    OUTSIDE: "boxes outside their image",
    SWAPPED: "boxes with reversed corners",
    CLIPPED: "boxes that extend beyond their image",
}
KINDS: Mapping[str, str] = {  # kind of problem -> its effect on a training; most serious first
    **dict.fromkeys((BAD_SPLIT, UNKNOWN_CLASS, UNKNOWN_NUMBER), STOPS),
    **dict.fromkeys((BAD_IMAGE, BAD_LABELS, UNKNOWN_DROPPED), DROPPED),
    **dict.fromkeys((BOXES[NOT_FINITE], BOXES[NO_AREA], BOXES[OUTSIDE], ROW_DROPPED), DROPPED),
    **dict.fromkeys((NO_IMAGE, NOT_FOUND, NOT_LISTED, UNSUPPORTED_FORMAT), DROPPED),
    **dict.fromkeys((BOXES[SWAPPED], BOXES[CLIPPED], ROW_REPAIRED), REPAIRED),
    **dict.fromkeys((DUPLICATE_ACROSS, NEAR_ACROSS, WRONG_SIZE, SHARED_LABELS, SECOND_LABELS, NO_LABELS), KEPT),
    **dict.fromkeys((DUPLICATE_BOX, DUPLICATE_IMAGE, NEAR_DUPLICATE), KEPT),
    **dict.fromkeys((EXIF, SIXTEEN_BITS, GRAY, CMYK, ALPHA, FRAMES, HUGE), KEPT),
}
UNKNOWN_CLASS_KINDS = (UNKNOWN_CLASS, UNKNOWN_NUMBER, UNKNOWN_DROPPED)
LEAKAGE_KINDS = (DUPLICATE_ACROSS, NEAR_ACROSS)
_TRAINED_ON = ("train", "valid")  # splits that a training opens
_OTHER_FORMATS = frozenset({".avif", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".tga"})


class Problem(NamedTuple):
    """One finding of the check, in one file."""

    split: str
    kind: str  # one of KINDS
    path: str  # of the image, label file or list
    detail: str  # "" if the kind says it all
    name: str = ""  # path below the split's folder, "" to show the file name only

    @property
    def effect(self) -> str:
        """Effect on a training: STOPS, DROPPED, REPAIRED or KEPT."""
        return KINDS[self.kind]

    def as_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {
            "split": self.split, "kind": self.kind, "place": self.path, "what": self.detail, "name": self.name,
            "effect": self.effect,
        }  # fmt: skip

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.name or Path(self.path).name, self.detail)))


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of one split as a training would use it."""

    images: int  # readable, with readable labels
    boxes: int
    boxes_per_class: dict[str, int]
    boxes_per_image: dict[str, float]  # least, mean, median, most; empty if there are no images
    without_objects: int  # number of images
    unknown_classes: dict[str, int]  # class missing from CLASSES, as written -> number of boxes
    image_folder: str
    labels: str

    def lines(self, name: str) -> list[str]:
        """Lines of text, beginning with the split's `name`."""
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
    """Result of the check of a data set."""

    data: str  # path of the YAML
    label_type: str
    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]
    problems: list[Problem]  # by split, most serious first
    readings: Mapping[str, SplitContent] = field(repr=False)  # labels as read, for the pictures of the report

    @property
    def stops(self) -> bool:
        """True if a training would refuse to start."""
        return any(problem.effect == STOPS and problem.split in _TRAINED_ON for problem in self.problems)

    def lines(self, limit: int | None = 20) -> list[str]:
        """Lines of text: every kind of problem with its count and the first `limit` files (None: all of them)."""
        by_kind: dict[str, dict[str, list[Problem]]] = {name: defaultdict(list) for name in self.splits}
        for problem in self.problems:
            by_kind[problem.split][problem.kind].append(problem)
        lines = []
        for name, summary in self.splits.items():
            lines.extend(summary.lines(name))
            lines.extend(self._lines_of_classes(summary))
            for kind, problems in by_kind[name].items():
                lines.append(f"  {EFFECT_NAMES[KINDS[kind]]}: {len(problems)} {kind}")
                listed = problems[:limit]
                lines.extend(f"    {problem}" for problem in listed)
                if len(listed) < len(problems):
                    lines.append(f"    and {len(problems) - len(listed)} more")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {
            "data": self.data,
            "label_type": self.label_type,
            "classes": list(self.classes),
            "stops": self.stops,
            "splits": {name: asdict(summary) for name, summary in self.splits.items()},
            "problems": [problem.as_dict() for problem in self.problems],
        }

    def _lines_of_classes(self, summary: SplitSummary) -> Iterator[str]:
        hints = class_hints(summary.unknown_classes, self.classes)
        for name, count in summary.unknown_classes.items():
            yield f"  {count} boxes of {name}, which is not in CLASSES{hints[name]}"


def check_data(
    config: DataConfig, label_type: str, *, drop_unknown: bool = False, near_duplicates: bool = True
) -> DataCheck:
    """Check every split of a data set; problems never end the check.

    Labels and image headers are read as in training.

    Args:
        drop_unknown: assume that training drops boxes of classes missing from CLASSES, see open_index.
        near_duplicates: also decode every image at reduced size, to find near duplicates within and across splits and
            images that cannot be decoded.
    """
    summaries, readings, problems = {}, {}, []
    for name in SPLITS:
        if name not in config.splits and name not in _TRAINED_ON:
            continue
        files, faults = _find(config, name, label_type)
        problems += [Problem(name, BAD_SPLIT, str(config.path), fault) for fault in faults]
        reading = readings[name] = read_files(files, f"Reading {name} labels")
        repaired, keep, box_problems = reading.repaired_boxes()
        summaries[name] = _summary(config, name, reading, keep)
        if name in config.splits:
            factory = _ProblemFactory(name, config.splits[name], label_type)
            problems += _file_problems(factory, reading)
            problems += _class_problems(factory, reading, config.classes, drop_unknown=drop_unknown)
            problems += _box_problems(factory, reading, config.classes, box_problems)
            problems += _duplicate_boxes(factory, reading, repaired, keep & (reading.labels != UNKNOWN))
            problems += _image_problems(factory, reading)
    factories = {
        name: _ProblemFactory(name, config.splits[name], label_type) for name in readings if name in config.splits
    }
    problems += _shared_labels(factories, readings)
    problems += _duplicate_images(factories, readings, near_duplicates)
    rank = {key: number for number, key in enumerate((*SPLITS, *KINDS))}
    problems.sort(key=lambda problem: (rank[problem.split], rank[problem.kind], problem.path))
    return DataCheck(str(config.path), label_type, config.classes[1:], summaries, problems, readings)


class _ProblemFactory(NamedTuple):
    """Constructor of the problems of one split, which completes the paths of files."""

    split: str
    folders: Split
    label_type: str

    def label_file(self, kind: str, name: str, detail: str = "") -> Problem:
        """Problem of a label file, or of an image's entry in a COCO JSON file."""
        labels = self.folders.labels
        folder = labels.parent if labels.is_file() else labels
        return Problem(self.split, kind, f"{folder}/{name}", detail, name)

    def image(self, kind: str, name: str, detail: str = "") -> Problem:
        """Problem of an image file."""
        return Problem(self.split, kind, str(self.folders.images / name), detail, name)

    def labels(self, kind: str, detail: str) -> Problem:
        """Problem of the label folder, or of the COCO JSON file."""
        return Problem(self.split, kind, str(self.folders.labels), detail)


def _find(config: DataConfig, name: str, label_type: str) -> tuple[SplitFiles, list[str]]:
    """The files of a split, and the errors on opening it.

    If the list of images is bad, all images of the folder are used; if the labels are bad, the images have none.
    """
    faults: dict[str, None] = {}  # an ordered set
    split = config.splits.get(name)
    for attempt in dict.fromkeys((split, replace(split, list=None) if split else None)):
        splits = {**config.splits, name: attempt} if attempt else config.splits
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
        boxes_per_image={key: float(function(per_image)) for key, function in statistic.items()} if per_image else {},
        without_objects=per_image.count(0),
        unknown_classes={key: len(images) for key, images in reading.unknown.items()},
        image_folder=str(split.images) if split else "",
        labels=str(split.labels) if split else "",
    )


def _file_problems(factory: _ProblemFactory, reading: SplitContent) -> Iterator[Problem]:
    """Problems of whole files and of entries of label files."""
    files, names = reading.files, reading.label_names
    for image, label_name, message in reading.unreadable:
        detail = message.removeprefix(f"{factory.folders.labels / label_name if label_name else image}:")
        detail = f"line {detail}" if detail[:1].isdigit() else detail.strip()
        if label_name:
            yield factory.label_file(BAD_LABELS, label_name, detail)
        else:
            yield factory.image(BAD_IMAGE, image.relative_to(files.images.folder).as_posix(), detail)
    for note in files.labels.notes if files.labels else ():
        yield factory.labels(ROW_DROPPED, note)
    for image, note in reading.notes:
        yield factory.label_file(ROW_DROPPED if note.endswith("dropped") else ROW_REPAIRED, names[image], note)
    for name in files.labels_without_image:  # label files of a folder, or images listed in a COCO JSON file
        is_file = factory.label_type in READERS
        yield factory.label_file(NO_IMAGE, name) if is_file else factory.labels(NO_IMAGE, name)
    for entry in files.missing_images:
        yield Problem(factory.split, NOT_FOUND, *entry.split(": ", 1))
    for name in files.unlisted_images:
        yield Problem(factory.split, NOT_LISTED, str(files.images.folder / name), "", name)
    for image, name in enumerate(names):
        if name is None and files.labels:
            yield factory.image(NO_LABELS, reading.images.names[image])
    for image, (height, width) in reading.claimed.items():
        actual = f"{reading.sizes[image, 1]}x{reading.sizes[image, 0]}"
        yield factory.label_file(
            WRONG_SIZE, names[image], f"{width}x{height}, {reading.images.names[image]} is {actual}"
        )
    for name in find_files(files.images.folder, _is_unsupported) if len(files.images) else ():
        yield factory.image(UNSUPPORTED_FORMAT, name, "save it as .jpg or .png")
    for name in files.labels.duplicates if files.labels else ():
        yield factory.label_file(SECOND_LABELS, name, "only the other one is read")


def _is_unsupported(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _OTHER_FORMATS


def _class_problems(
    factory: _ProblemFactory, reading: SplitContent, classes: Sequence[str], *, drop_unknown: bool
) -> Iterator[Problem]:
    hints = class_hints(reading.unknown, classes)
    for name, images in reading.unknown.items():
        unknown = UNKNOWN_NUMBER if name.startswith("class ") else UNKNOWN_CLASS
        kind = UNKNOWN_DROPPED if drop_unknown else unknown
        for image, count in Counter(images).items():
            detail = f"{counted(count, 'box', 'boxes')} of {name}{hints[name]}"
            yield factory.label_file(kind, reading.label_names[image], detail)


def _box_problems(
    factory: _ProblemFactory, reading: SplitContent, classes: Sequence[str], problems: np.ndarray
) -> Iterator[Problem]:
    """One problem for every box that is repaired or dropped."""
    for box in np.flatnonzero(problems != "").tolist():
        label, corners = int(reading.labels[box]), " ".join(f"{corner:g}" for corner in reading.boxes[box])
        name = "" if label == UNKNOWN else f"{classes[label]} "
        yield _box_problem(factory, reading, BOXES[problems[box]], box, f" ({name}{corners})")


def _duplicate_boxes(
    factory: _ProblemFactory, reading: SplitContent, boxes: np.ndarray, keep: np.ndarray
) -> Iterator[Problem]:
    rows = np.flatnonzero(keep)
    twins = repeated_boxes(reading.image_of_box[rows], reading.labels[rows], boxes[rows])
    for other in np.flatnonzero(twins >= 0).tolist():
        first = _number_in_image(reading, int(rows[twins[other]]))
        yield _box_problem(factory, reading, DUPLICATE_BOX, int(rows[other]), f" is equal to box {first}")


def _box_problem(factory: _ProblemFactory, reading: SplitContent, kind: str, box: int, detail: str) -> Problem:
    name = reading.label_names[reading.image_of_box[box]]
    return factory.label_file(kind, name, f"box {_number_in_image(reading, box)}{detail}")


def _number_in_image(reading: SplitContent, box: int) -> int:
    """Number of a box in its label file, from 1."""
    return box - int(np.searchsorted(reading.image_of_box, reading.image_of_box[box])) + 1


def _image_problems(factory: _ProblemFactory, reading: SplitContent) -> Iterator[Problem]:
    for image, path in enumerate(progress_bar(reading.images, f"Checking {factory.split} images")):
        for kind, detail in image_notes(path, as_stored=bool(reading.as_stored[image])):
            yield factory.image(kind, reading.images.names[image], detail)


def _shared_labels(factories: Mapping[str, _ProblemFactory], readings: Mapping[str, SplitContent]) -> Iterator[Problem]:
    """Images with equal stems, in one split or in two splits that share a label folder."""
    first: dict[tuple[Path, str], Path] = {}
    for name, factory in factories.items():
        labels, reading = factory.folders.labels.resolve(), readings[name]
        for image, path, label_name in zip(reading.images.names, reading.images, reading.label_names, strict=True):
            if label_name is not None:
                other = first.setdefault((labels, label_name), path)
                if other != path:
                    yield factory.image(SHARED_LABELS, image, f"{label_name} also belongs to {other}")


def _duplicate_images(
    factories: Mapping[str, _ProblemFactory], readings: Mapping[str, SplitContent], near: bool
) -> Iterator[Problem]:
    """Duplicate and, if `near`, near-duplicate images, and images that cannot be decoded.

    A duplicate is reported once for each split with an earlier copy.
    """
    paths = [path for name in factories for path in readings[name].images]
    locations = [(name, image) for name in factories for image in range(len(readings[name].images))]

    def problem(first: int, second: int, across: str, within: str) -> Problem:
        (other, twin), (name, image) = locations[first], locations[second]
        kind, suffix = (within, "") if name == other else (across, f" of {other}")
        twin_name = readings[other].images.names[twin]
        return factories[name].image(kind, readings[name].images.names[image], f"the same as {twin_name}{suffix}")

    content = np.arange(len(paths))  # equal numbers for equal bytes
    for group in same_bytes(paths):
        first_in: dict[str, int] = {}
        for second in group:
            content[second] = group[0]
            yield from (problem(first, second, DUPLICATE_ACROSS, DUPLICATE_IMAGE) for first in first_in.values())
            first_in.setdefault(locations[second][0], second)
    if not near or not paths:
        return
    prints = fingerprints(paths, np.concatenate([readings[name].sizes for name in factories]))
    pairs = near_pairs(prints)
    pairs = pairs[content[pairs[:, 0]] != content[pairs[:, 1]]]
    number_of = np.repeat(np.arange(len(factories)), [len(readings[name].images) for name in factories])
    once = np.unique(pairs[:, 1] * len(factories) + number_of[pairs[:, 0]], return_index=True)[1]
    for first, second in pairs[once].tolist():
        yield problem(first, second, NEAR_ACROSS, NEAR_DUPLICATE)
    for number in np.flatnonzero(~prints.decoded).tolist():
        name, image = locations[number]
        yield from _undecodable(factories[name], readings[name].images.names[image], paths[number])


def _undecodable(factory: _ProblemFactory, name: str, path: Path) -> Iterator[Problem]:
    """The problem of an image that could not be decoded at reduced size, with the error of training."""
    try:
        read_image(path)
    except DataError as error:
        yield factory.image(BAD_IMAGE, name, str(error).removeprefix(f"{path}: "))
