"""Read all labels of one split into flat arrays, once."""

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
from utils.images.file_lists import FileList, find_files, match_names, stem
from utils.images.image_files import DamagedImageError, ImageSize, is_image_name, read_image, read_image_size
from utils.labels.boxes import DROPPED, repair_boxes
from utils.labels.data_config import DataConfig
from utils.labels.readers import UNKNOWN, LabelFile, excerpt
from utils.labels.sources import COCO, LabelSource, open_labels
from utils.machine import release_memory
from utils.progress import progress_bar
from utils.text import did_you_mean

_MAX_NAMES = 5  # in a message
_MAX_HINTS = 20  # names that are compared with all of CLASSES
_BLOCK = 1 << 16  # boxes
log = logging.getLogger(__name__)


@dataclass
class LabelReport:
    """Missing, repaired and dropped items: kind -> one line for each item."""

    items: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, items: Sequence[str]) -> None:
        """Add items of a kind; none are allowed."""
        if items:
            self.items[kind].extend(items)

    def lines(self, limit: int | None = _MAX_NAMES) -> list[str]:
        """One line per kind, with its count and the first `limit` items (None: all)."""
        lines = []
        for kind, items in self.items.items():
            first = items[:limit]
            more = f" and {len(items) - len(first)} more" if len(first) < len(items) else ""
            lines.append(f"{kind}: {len(items)} ({', '.join(first)}{more})")
        return lines


@dataclass(frozen=True)
class LabelIndex:
    """Images and boxes of one split. The boxes of image i are rows offsets[i]:offsets[i + 1]."""

    files: FileList  # N images
    sizes: np.ndarray  # (N, 2) int32, height and width in the orientation that the labels refer to
    as_stored: np.ndarray  # (N,) bool, True if that is the stored orientation and EXIF must not be applied
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
        """Folder that contains the images, directly or below."""
        return self.files.folder

    def path(self, i: int) -> Path:
        """Path of image i."""
        return self.files[i]

    def pixels(self, i: int) -> np.ndarray:
        """Decode image i: (H, W, 3) uint8 RGB, in the orientation that its boxes refer to.

        Raises:
            DataError: the file is missing or cannot be opened.
            DamagedImageError: it cannot be decoded, or its size differs from that in its header when labels were read.
        """
        path, (height, width) = self.files.text(i), self.sizes[i].tolist()
        image = read_image(path, as_stored=bool(self.as_stored[i]))
        if image.shape[:2] != (height, width):
            decoded = f"{image.shape[1]}x{image.shape[0]}"
            raise DamagedImageError(
                f"{path}: decodes to {decoded}, its header said {width}x{height} when the labels were read: "
                "start again if the file was replaced, else save it anew"
            )
        return image

    def log_summary(self, purpose: str) -> None:
        """Log the numbers of samples and boxes, and the report."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        per_class = ", ".join(f"{name} {n}" for name, n in zip(self.classes[1:], counts[1:], strict=True))
        empty = int((np.diff(self.offsets) == 0).sum())
        log.info("Number of %s samples: %d", purpose, len(self))
        log.info("  %d boxes (%s); %d images without objects", len(self.boxes), per_class, empty)
        for line in self.report.lines():
            log.warning("  %s", line)

    def image_of_box(self) -> np.ndarray:
        """(M,) int64 image of every box, ascending."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def max_boxes(self) -> int:
        """Largest number of boxes in an image."""
        return int(np.diff(self.offsets).max(initial=0))

    def rows(self, i: int) -> slice:
        """Rows of image i in boxes, labels and ignored."""
        return slice(*self.offsets[i : i + 2].tolist())


@dataclass(frozen=True)
class SplitFiles:
    """Files of a split."""

    images: FileList  # N
    labels: LabelSource | None  # None: they cannot be opened, and images are read without labels
    matched: np.ndarray  # (N,) int64, position of every image's labels in `labels`, -1 for none
    labels_without_image: list[str] = field(default_factory=list)  # names of label files
    missing_images: list[str] = field(default_factory=list)  # entries of the split list
    unlisted_images: list[str] = field(default_factory=list)  # images that COCO's json does not have

    def label_name(self, image: int) -> str | None:
        """Name of the labels of an image, for messages; None if it has none."""
        return self.labels.label_name(int(self.matched[image])) if self.labels and self.matched[image] >= 0 else None


class UnreadableFile(NamedTuple):
    """A file that cannot be read."""

    image: Path
    label_name: str | None  # None: the image itself cannot be read
    message: str


@dataclass(frozen=True)
class SplitContent:
    """Content of the files of one split with all faults, before any repair."""

    files: SplitFiles
    images: FileList  # N, with readable header and labels
    label_names: list[str | None]  # N, for messages; None: the image has no labels
    unreadable: list[UnreadableFile]
    sizes: np.ndarray  # (N, 2) int32, height and width in the orientation that the labels refer to
    as_stored: np.ndarray  # (N,) bool, see LabelIndex
    image_of_box: np.ndarray  # (M,) int32, ascending
    boxes: np.ndarray  # (M, 4) float64, in the convention of utils/labels/boxes.py, as written
    labels: np.ndarray  # (M,) int32, index into CLASSES, or UNKNOWN
    ignored: np.ndarray  # (M,) bool
    unknown: dict[str, list[int]]  # class that CLASSES lacks -> image of each of its boxes
    claimed: dict[int, tuple[int, int]]  # image -> height and width in its label file, if they differ
    notes: list[tuple[int, str]]  # image, entry of its labels that was skipped

    def repaired_boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return repair_boxes of all boxes; done in blocks, as it takes ten times the memory of its boxes."""
        count = len(self.boxes)
        repaired, keep, problems = np.empty((count, 4), np.float32), np.empty(count, bool), np.empty(count, object)
        for at in range(0, count, _BLOCK):
            block = slice(at, at + _BLOCK)
            repaired[block], keep[block], problems[block] = repair_boxes(
                self.boxes[block], self.sizes[self.image_of_box[block]]
            )
        return repaired, keep, problems


def open_index(config: DataConfig, split_name: str, label_type: str, *, drop_unknown: bool = False) -> LabelIndex:
    """Read every label and image header of a split.

    Bad boxes are repaired or dropped one by one. Images that cannot be read, or whose labels cannot, are skipped. All
    of this is listed in the index's report. An image without a label file, or with an empty one, has no objects.

    Args:
        drop_unknown: drop boxes of classes that CLASSES lacks.

    Raises:
        DataError: folders are missing or empty, have labels of another type or no readable image, or labels have
            unknown classes.
    """
    files = find_split(config, split_name, label_type)
    content = read_files(files, f"Reading {split_name} labels")
    if not len(content.images):
        errors = [file.message for file in content.unreadable]
        raise DataError(f"{files.images.folder}: no image can be used: {_some(errors, '; ')}")
    if not drop_unknown:
        _check_classes(config, split_name, content)
    index = _assemble(content, config.classes)
    del files, content
    release_memory()
    return index


def find_split(config: DataConfig, split_name: str, label_type: str) -> SplitFiles:
    """List the image and label files of a split.

    Raises:
        DataError: folders are missing or empty, or have labels of another type; the split list cannot be read.
    """
    split = config.split(split_name)
    names = find_files(split.images, is_image_name)
    if not names:
        raise DataError(f"{config.path}: no images in {split.images}: is {split_name.upper()}_DIR_IMAGES right?")
    label_of = {name: i for i, name in enumerate(config.classes) if i > 0}
    source, matched = open_labels(split, label_type, label_of, names)
    unused = np.ones(len(source.names), bool)
    unused[matched[matched >= 0]] = False
    labels_without_image = sorted(source.names[i] for i in np.flatnonzero(unused).tolist())
    unlisted = []
    if label_type == COCO:  # its "images" lists the images of the split, those without objects too
        unlisted = [names[i] for i in np.flatnonzero(matched < 0).tolist()]
        names = [names[i] for i in np.flatnonzero(matched >= 0).tolist()]
        matched = matched[matched >= 0]
    if split.list is None:
        return SplitFiles(
            FileList(split.images, names), source, matched, labels_without_image, unlisted_images=unlisted
        )
    chosen, missing_images = _listed(split.images, names, split.list)
    images = FileList(split.images, (names[i] for i in chosen))
    return SplitFiles(images, source, matched[chosen], labels_without_image, missing_images)


def read_files(files: SplitFiles, description: str) -> SplitContent:
    """Read labels and header of every image; faults are not raised, but collected in the result."""
    read, label_names, unreadable, notes = array("q"), [], [], []
    sizes, as_stored, counts = array("i"), array("b"), array("i")  # arrays: a list takes ten times the memory
    boxes, box_labels, ignored = array("d"), array("i"), array("b")
    unknown, claimed = defaultdict(list), {}
    for number, path in enumerate(progress_bar(files.images, description)):
        image_size, labels, faults = _read_one(files, number, path)
        unreadable.extend(faults)
        if image_size is None or labels is None:
            continue
        image = len(read)
        read.append(number)
        label_names.append(files.label_name(number))
        stored = labels.size == image_size.stored != image_size.displayed
        size = image_size.stored if stored else image_size.displayed
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
    return SplitContent(
        files=files,
        images=FileList(files.images.folder, (files.images.names[i] for i in read)),
        label_names=label_names,
        unreadable=unreadable,
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


def _read_one(
    files: SplitFiles, number: int, path: Path
) -> tuple[ImageSize | None, LabelFile | None, list[UnreadableFile]]:
    """Read size and labels of an image; None for those that cannot be read, with the reasons."""
    image_size, labels, faults = None, None, []
    try:
        image_size = read_image_size(path)
    except DataError as error:
        faults.append(UnreadableFile(path, None, str(error)))
    try:
        size = image_size.displayed if image_size else (1, 1)  # labels of a broken image are read for their faults
        matched = int(files.matched[number])
        labels = files.labels.read(matched, size) if files.labels and matched >= 0 else LabelFile()
    except DataError as error:
        faults.append(UnreadableFile(path, files.label_name(number), str(error)))
    return image_size, labels, faults


def _listed(folder: Path, images: Sequence[str], list_file: Path) -> tuple[list[int], list[str]]:
    """Positions of the images in a split list, in its order, and its entries without an image.

    Pascal VOC's lists have further columns after the name, which are ignored; those of Darknet have paths.

    Raises:
        DataError: the list cannot be read, or lists none of the images.
    """
    try:
        file_size(list_file)
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{list_file}: cannot be read as a list of image names ({error}): repair or drop it") from None
    entries = [line.replace("\\", "/") for line in map(str.strip, lines) if line]
    first_words = [entry.split()[0] for entry in entries]
    stems = [stem(name) for name in images]
    matches = np.full(len(entries), -1)
    for listed, existing in product((entries, first_words), (images, stems)):
        matches = np.where(matches < 0, match_names(listed, existing), matches)
    if not (matches >= 0).any():
        raise DataError(f"{list_file}: names none of the images in {folder}: expected lines such as {stems[0]}")
    missing_images = [
        f"{list_file.name}: entry {number}, {excerpt(entry)}"
        for number, (entry, image) in enumerate(zip(entries, matches, strict=True), 1)
        if image < 0
    ]
    return list(dict.fromkeys(matches[matches >= 0].tolist())), missing_images


def _assemble(content: SplitContent, classes: tuple[str, ...]) -> LabelIndex:
    boxes, keep, problems = content.repaired_boxes()
    report = _report(content, problems, classes)
    keep &= content.labels != UNKNOWN
    kept = np.bincount(content.image_of_box[keep], minlength=len(content.images))
    return LabelIndex(
        files=content.images,
        sizes=content.sizes,
        as_stored=content.as_stored,
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        boxes=boxes[keep],
        labels=content.labels[keep],
        ignored=content.ignored[keep],
        classes=classes,
        report=report,
    )


def _report(content: SplitContent, box_problems: np.ndarray, classes: Sequence[str]) -> LabelReport:
    report, names, source = LabelReport(), content.label_names, content.files.labels
    notes = [f"{names[image]}: {note}" for image, note in content.notes]
    report.add("files that cannot be read, their images left out", [file.message for file in content.unreadable])
    hints = class_hints(content.unknown, classes)
    for name, images in content.unknown.items():
        items = [f"{names[image]}: {count}" for image, count in Counter(images).items()]
        report.add(f"label files with boxes of {name}, which CLASSES lacks{hints[name]}, dropped", items)
    report.add("listed images that are not there", content.files.missing_images)
    report.add("images that COCO's json does not list, not of this split", content.files.unlisted_images)
    report.add("rows of label files", [*(source.notes if source else []), *notes])
    report.add("labels without image", content.files.labels_without_image)
    without = [content.images.names[image] for image, name in enumerate(names) if name is None]
    report.add("no labels, taken as without objects", without)
    duplicates = [f"{name}: only the other is read" for name in source.duplicates] if source else []
    report.add("label files of an image that has another", duplicates)
    shared = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    report.add("label files that several images share", shared)
    report.add("image size in the label file differs from the image", [names[image] for image in content.claimed])
    for box in np.flatnonzero(box_problems != ""):
        kind = "boxes dropped" if box_problems[box] in DROPPED else "boxes repaired"
        report.items[kind].append(f"{content.images.names[content.image_of_box[box]]}: {box_problems[box]}")
    return report


def class_hints(unknown: Iterable[str], classes: Sequence[str]) -> Mapping[str, str]:
    """Similar class names for the first unknown ones, which a reader gives in quotes."""
    hints = {name: did_you_mean(name.strip("'"), classes, shown=repr) for name in islice(unknown, _MAX_HINTS)}
    return defaultdict(str, hints)


def _check_classes(config: DataConfig, split_name: str, content: SplitContent) -> None:
    """Raise DataError for classes that the YAML lacks: the YAML is wrong more often than the labels."""
    unknown = sorted(content.unknown.items(), key=lambda item: -len(item[1]))
    if not unknown:
        return
    texts, hints = [], class_hints((name for name, _ in unknown[:_MAX_NAMES]), config.classes)
    for name, images in unknown[:_MAX_NAMES]:
        texts.append(f"{name} ({len(images)} boxes, first in {content.label_names[images[0]]}{hints[name]})")
    more = f" and {len(unknown) - len(texts)} more" if len(texts) < len(unknown) else ""
    raise DataError(
        f"{config.splits[split_name].labels}: labels of {len(unknown)} class(es) that CLASSES in {config.path} "
        f"does not have: {', '.join(texts)}{more}; "
        f"CLASSES has {len(config.classes) - 1}: {', '.join(config.classes[1:])}; "
        "correct CLASSES, or drop these boxes with --drop-unknown"
    )


def _some(texts: Sequence[str], between: str) -> str:
    more = f"{between}and {len(texts) - _MAX_NAMES} more" if len(texts) > _MAX_NAMES else ""
    return between.join(texts[:_MAX_NAMES]) + more
