"""All labels of one split, read once into flat arrays."""

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import DataError
from utils.files import file_size
from utils.images.file_lists import Files, find_files, match, stem
from utils.images.image_files import DamagedImageError, ImageHeader, is_image_name, read_header, read_image
from utils.labels.boxes import DROPPED, mend_boxes
from utils.labels.data_config import DataConfig
from utils.labels.readers import UNKNOWN, LabelFile, shown
from utils.labels.sources import COCO, LabelSource, open_labels
from utils.machine import give_back_memory
from utils.progress import bar
from utils.text import did_you_mean

_NAMES_SHOWN = 5
_MOST_HINTS = 20  # names that are compared with all of CLASSES
_BLOCK = 1 << 16  # boxes
log = logging.getLogger(__name__)


@dataclass
class LabelReport:
    """What was missing, mended or dropped, by kind: kind -> the places, one each."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, places: Sequence[str]) -> None:
        """Note several places, or none."""
        if places:
            self.found[kind].extend(places)

    def lines(self, limit: int | None = _NAMES_SHOWN) -> list[str]:
        """One line a kind, with its count and the first `limit` places (None: all of them)."""
        lines = []
        for kind, places in self.found.items():
            shown = places[:limit]
            more = f" and {len(places) - len(shown)} more" if len(shown) < len(places) else ""
            lines.append(f"{kind}: {len(places)} ({', '.join(shown)}{more})")
        return lines


@dataclass(frozen=True)
class LabelIndex:
    """The images and boxes of one split. Boxes of image i are rows offsets[i]:offsets[i + 1]."""

    files: Files  # N images
    sizes: np.ndarray  # (N, 2) int32, height and width in the orientation that the labels mean
    as_stored: np.ndarray  # (N,) bool, True where that is the stored orientation and EXIF must not be applied
    offsets: np.ndarray  # (N + 1,) int64
    boxes: np.ndarray  # (M, 4) float32, see utils/labels/boxes.py
    labels: np.ndarray  # (M,) int32, index into classes
    ignored: np.ndarray  # (M,) bool, VOC difficult: neither trained on nor counted as missed
    classes: tuple[str, ...]
    report: LabelReport

    def __len__(self) -> int:
        return len(self.files)

    @property
    def folder(self) -> Path:
        """That the images are in, or below."""
        return self.files.folder

    def path(self, i: int) -> Path:
        """File of image i."""
        return self.files[i]

    def pixels(self, i: int) -> np.ndarray:
        """Decode image i: (H, W, 3) uint8 RGB, in the orientation that its boxes mean.

        Raises:
            DataError: the file is missing or cannot be opened.
            DamagedImageError: it cannot be decoded, or not to the size that its header had when the labels were read.
        """
        path, (height, width) = self.files.text(i), self.sizes[i].tolist()
        image = read_image(path, as_stored=bool(self.as_stored[i]))
        if image.shape[:2] != (height, width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise DamagedImageError(
                f"{path}: decodes to {found}, its header said {width}x{height} when the labels were read: "
                "start again if the file was replaced, else save it anew"
            )
        return image

    def log_summary(self, purpose: str) -> None:
        """Log the numbers of samples and boxes, and what was missing, mended or dropped."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        per_class = ", ".join(f"{name} {n}" for name, n in zip(self.classes[1:], counts[1:], strict=True))
        empty = int((np.diff(self.offsets) == 0).sum())
        log.info("Number of %s samples: %d", purpose, len(self))
        log.info("  %d boxes (%s); %d images without objects", len(self.boxes), per_class, empty)
        for line in self.report.lines():
            log.warning("  %s", line)

    def image_of_box(self) -> np.ndarray:
        """(M,) int64, ascending."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def most_boxes(self) -> int:
        """Boxes of the image that has the most."""
        return int(np.diff(self.offsets).max(initial=0))

    def rows(self, i: int) -> slice:
        """Where image i's boxes lie in boxes, labels and ignored."""
        return slice(*self.offsets[i : i + 2].tolist())


@dataclass(frozen=True)
class SplitFiles:
    """Which files a split has."""

    images: Files  # N
    labels: LabelSource | None  # None: they cannot be opened, and the images are looked at without
    matched: np.ndarray  # (N,) int64, the labels of every image, -1 where it has none
    without_image: list[str] = field(default_factory=list)  # labels
    not_there: list[str] = field(default_factory=list)  # entries of the split list
    not_listed: list[str] = field(default_factory=list)  # images that COCO's json does not have

    def label_name(self, image: int) -> str | None:
        """What messages call the labels of an image; None if it has none."""
        return self.labels.label_name(int(self.matched[image])) if self.labels and self.matched[image] >= 0 else None


class Broken(NamedTuple):
    """A file that cannot be read."""

    image: Path
    label_name: str | None  # None: it is the image itself
    message: str


@dataclass(frozen=True)
class SplitReading:
    """All that the files of one split say, with all that is wrong with them; nothing is mended or refused yet."""

    files: SplitFiles
    images: Files  # N, those of which header and labels could be read
    label_names: list[str | None]  # N; what messages call the labels of an image; None: it has none
    broken: list[Broken]
    sizes: np.ndarray  # (N, 2) int32, height and width in the orientation that the labels mean
    as_stored: np.ndarray  # (N,) bool, see LabelIndex
    image_of_box: np.ndarray  # (M,) int32, ascending
    boxes: np.ndarray  # (M, 4) float64, in the convention of utils/labels/boxes.py, as written
    labels: np.ndarray  # (M,) int32, index into CLASSES, or UNKNOWN
    ignored: np.ndarray  # (M,) bool
    unknown: dict[str, list[int]]  # class that CLASSES lacks -> image of every box of it
    claimed: dict[int, tuple[int, int]]  # image -> height and width that its label file says, where they are others
    notes: list[tuple[int, str]]  # image, what was left out of its labels

    def mended(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See mend_boxes; in blocks, for it takes ten times the memory of its boxes."""
        count = len(self.boxes)
        mended, keep, problems = np.empty((count, 4), np.float32), np.empty(count, bool), np.empty(count, object)
        for at in range(0, count, _BLOCK):
            block = slice(at, at + _BLOCK)
            mended[block], keep[block], problems[block] = mend_boxes(
                self.boxes[block], self.sizes[self.image_of_box[block]]
            )
        return mended, keep, problems


def open_index(config: DataConfig, split_name: str, label_type: str, *, drop_unknown: bool = False) -> LabelIndex:
    """Read every label and image header of a split.

    Bad boxes are mended or dropped one by one, and images that cannot be read, or whose labels cannot, are left out;
    all is noted in the index's report. An image without a label file, or with an empty one, has no objects.

    Args:
        drop_unknown: leave out boxes of classes that CLASSES lacks.

    Raises:
        DataError: folders are missing or empty, hold labels of another type or no image that can be read, or labels
            name unknown classes.
    """
    files = find_split(config, split_name, label_type)
    reading = read_files(files, f"Reading {split_name} labels")
    if not len(reading.images):
        errors = [broken.message for broken in reading.broken]
        raise DataError(f"{files.images.folder}: no image can be used: {_some(errors, '; ')}")
    if not drop_unknown:
        _check_classes(config, split_name, reading)
    index = _assemble(reading, config.classes)
    del files, reading
    give_back_memory()
    return index


def find_split(config: DataConfig, split_name: str, label_type: str) -> SplitFiles:
    """The files of a split.

    Raises:
        DataError: folders are missing or empty, or hold labels of another type; the split list cannot be read.
    """
    split = config.split(split_name)
    there = find_files(split.images, is_image_name)
    if not there:
        raise DataError(f"{config.path}: no images in {split.images}: is {split_name.upper()}_DIR_IMAGES right?")
    label_of = {name: i for i, name in enumerate(config.classes) if i > 0}
    source, matched = open_labels(split, label_type, label_of, there)
    unused = np.ones(len(source.names), bool)
    unused[matched[matched >= 0]] = False
    without_image = sorted(source.names[i] for i in np.flatnonzero(unused).tolist())
    not_listed = []
    if label_type == COCO:  # its "images" says which belong to the split, those without objects too
        not_listed = [there[i] for i in np.flatnonzero(matched < 0).tolist()]
        there = [there[i] for i in np.flatnonzero(matched >= 0).tolist()]
        matched = matched[matched >= 0]
    if split.list is None:
        return SplitFiles(Files(split.images, there), source, matched, without_image, not_listed=not_listed)
    chosen, not_there = _listed(split.images, there, split.list)
    images = Files(split.images, (there[i] for i in chosen))
    return SplitFiles(images, source, matched[chosen], without_image, not_there)


def read_files(files: SplitFiles, description: str) -> SplitReading:
    """Read labels and header of every image; no fault of theirs is raised, all are in the result."""
    read, label_names, broken, notes = array("q"), [], [], []
    sizes, as_stored, counts = array("i"), array("b"), array("i")  # arrays: a list takes ten times the memory
    boxes, box_labels, ignored = array("d"), array("i"), array("b")
    unknown, claimed = defaultdict(list), {}
    for number, path in enumerate(bar(files.images, description)):
        header, labels, faults = _read_one(files, number, path)
        broken.extend(faults)
        if header is None or labels is None:
            continue
        image = len(read)
        read.append(number)
        label_names.append(files.label_name(number))
        stored = labels.size == header.stored != header.shown
        size = header.stored if stored else header.shown
        sizes.extend(size)
        as_stored.append(stored)
        if labels.size not in (None, size):
            claimed[image] = labels.size
        notes.extend((image, note) for note in labels.notes)
        for name in labels.unknown:
            unknown[name].append(image)
        counts.append(len(labels.boxes))
        boxes.extend(chain.from_iterable(labels.boxes))
        box_labels.extend(labels.labels)
        ignored.extend(labels.ignored)
    return SplitReading(
        files=files,
        images=Files(files.images.folder, (files.images.names[i] for i in read)),
        label_names=label_names,
        broken=broken,
        sizes=np.frombuffer(sizes, np.int32).reshape(-1, 2),
        as_stored=np.frombuffer(as_stored, bool),
        image_of_box=np.repeat(np.arange(len(read), dtype=np.int32), np.frombuffer(counts, np.int32)),
        boxes=np.frombuffer(boxes, np.float64).reshape(-1, 4),
        labels=np.frombuffer(box_labels, np.int32),
        ignored=np.frombuffer(ignored, bool),
        unknown=dict(unknown),
        claimed=claimed,
        notes=notes,
    )


def _read_one(files: SplitFiles, number: int, path: Path) -> tuple[ImageHeader | None, LabelFile | None, list[Broken]]:
    """Header and labels of an image, None where they cannot be read, and why not."""
    header, labels, faults = None, None, []
    try:
        header = read_header(path)
    except DataError as error:
        faults.append(Broken(path, None, str(error)))
    try:
        size = header.shown if header else (1, 1)  # of a broken image the labels are read for their own faults alone
        matched = int(files.matched[number])
        labels = files.labels.read(matched, size) if files.labels and matched >= 0 else LabelFile()
    except DataError as error:
        faults.append(Broken(path, files.label_name(number), str(error)))
    return header, labels, faults


def _listed(folder: Path, images: Sequence[str], list_file: Path) -> tuple[list[int], list[str]]:
    """Positions of the images that a split list names, in its order, and its entries that are no image.

    Pascal VOC's lists have more after the name, which is ignored; those of Darknet have paths.

    Raises:
        DataError: the list cannot be read, or names none of the images.
    """
    try:
        file_size(list_file)
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{list_file}: cannot be read as a list of image names ({error}): repair or drop it") from None
    entries = [line.replace("\\", "/") for line in map(str.strip, lines) if line]
    first_words = [entry.split()[0] for entry in entries]
    stems = [stem(name) for name in images]
    found = np.full(len(entries), -1)
    for wanted, there in product((entries, first_words), (images, stems)):
        found = np.where(found < 0, match(wanted, there), found)
    if not (found >= 0).any():
        raise DataError(f"{list_file}: names none of the images in {folder}: expected lines such as {stems[0]}")
    not_there = [
        f"{list_file.name}: entry {number}, {shown(entry)}"
        for number, (entry, image) in enumerate(zip(entries, found, strict=True), 1)
        if image < 0
    ]
    return list(dict.fromkeys(found[found >= 0].tolist())), not_there


def _assemble(reading: SplitReading, classes: tuple[str, ...]) -> LabelIndex:
    boxes, keep, problems = reading.mended()
    report = _report(reading, problems, classes)
    keep &= reading.labels != UNKNOWN
    kept = np.bincount(reading.image_of_box[keep], minlength=len(reading.images))
    return LabelIndex(
        files=reading.images,
        sizes=reading.sizes,
        as_stored=reading.as_stored,
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        boxes=boxes[keep],
        labels=reading.labels[keep],
        ignored=reading.ignored[keep],
        classes=classes,
        report=report,
    )


def _report(reading: SplitReading, box_problems: np.ndarray, classes: Sequence[str]) -> LabelReport:
    report, names, source = LabelReport(), reading.label_names, reading.files.labels
    notes = [f"{names[image]}: {note}" for image, note in reading.notes]
    report.add("files that cannot be read, their images left out", [broken.message for broken in reading.broken])
    hints = class_hints(reading.unknown, classes)
    for name, images in reading.unknown.items():
        places = [f"{names[image]}: {count}" for image, count in Counter(images).items()]
        report.add(f"label files with boxes of {name}, which CLASSES lacks{hints[name]}, dropped", places)
    report.add("listed images that are not there", reading.files.not_there)
    report.add("images that COCO's json does not list, not of this split", reading.files.not_listed)
    report.add("rows of label files", [*(source.notes if source else []), *notes])
    report.add("labels without image", reading.files.without_image)
    without = [reading.images.names[image] for image, name in enumerate(names) if name is None]
    report.add("no labels, taken as without objects", without)
    doubles = [f"{name}: only the other is read" for name in source.doubles] if source else []
    report.add("label files of an image that has another", doubles)
    shared = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    report.add("label files that several images share", shared)
    report.add("image size in the label file is not the file's", [names[image] for image in reading.claimed])
    for box in np.flatnonzero(box_problems != ""):
        kind = "boxes dropped" if box_problems[box] in DROPPED else "boxes mended"
        report.found[kind].append(f"{reading.images.names[reading.image_of_box[box]]}: {box_problems[box]}")
    return report


def class_hints(unknown: Iterable[str], classes: Sequence[str]) -> Mapping[str, str]:
    """For names in quotes, as a reader gives those that CLASSES lacks: which class may be meant, of the first few."""
    asked = {name: did_you_mean(name.strip("'"), classes, shown=repr) for name in islice(unknown, _MOST_HINTS)}
    return defaultdict(str, asked)


def _check_classes(config: DataConfig, split_name: str, reading: SplitReading) -> None:
    """A class that the YAML lacks stops the run: the YAML is wrong more often than the labels."""
    unknown = sorted(reading.unknown.items(), key=lambda item: -len(item[1]))
    if not unknown:
        return
    shown, hints = [], class_hints((name for name, _ in unknown[:_NAMES_SHOWN]), config.classes)
    for name, images in unknown[:_NAMES_SHOWN]:
        shown.append(f"{name} ({len(images)} boxes, first in {reading.label_names[images[0]]}{hints[name]})")
    more = f" and {len(unknown) - len(shown)} more" if len(shown) < len(unknown) else ""
    raise DataError(
        f"{config.splits[split_name].labels}: labels of {len(unknown)} class(es) that CLASSES in {config.path} "
        f"does not have: {', '.join(shown)}{more}; "
        f"CLASSES has {len(config.classes) - 1}: {', '.join(config.classes[1:])}; "
        "correct CLASSES, or leave such boxes out with --drop-unknown"
    )


def _some(texts: Sequence[str], between: str) -> str:
    more = f"{between}and {len(texts) - _NAMES_SHOWN} more" if len(texts) > _NAMES_SHOWN else ""
    return between.join(texts[:_NAMES_SHOWN]) + more
