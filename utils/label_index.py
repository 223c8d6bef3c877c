"""All labels of one split, read once into flat arrays."""

import difflib
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.boxes import DROPPED, mend_boxes
from utils.data_config import DataConfig
from utils.errors import DataError
from utils.images import list_images, read_header, read_image
from utils.label_readers import LabelFile, shown
from utils.label_sources import open_labels
from utils.progress import bar

_NAMES_SHOWN = 5
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

    folder: Path
    names: np.ndarray  # (N,) str, file names in `folder`
    sizes: np.ndarray  # (N, 2) int64, height and width in the orientation that the labels mean
    as_stored: np.ndarray  # (N,) bool, True where that is the stored orientation and EXIF must not be applied
    offsets: np.ndarray  # (N + 1,) int64
    boxes: np.ndarray  # (M, 4) float32, see utils/boxes.py
    labels: np.ndarray  # (M,) int64, index into classes
    ignored: np.ndarray  # (M,) bool, VOC difficult: neither trained on nor counted as missed
    classes: tuple[str, ...]
    report: LabelReport

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> Path:
        """File of image i."""
        return self.folder / str(self.names[i])

    def pixels(self, i: int) -> np.ndarray:
        """Decode image i: (H, W, 3) uint8 RGB, in the orientation that its boxes mean.

        Raises:
            DataError: it cannot be decoded, or not to the size that its header had when the labels were read.
        """
        path, (height, width) = self.path(i), self.sizes[i]
        image = read_image(path, as_stored=bool(self.as_stored[i]))
        if image.shape[:2] != (height, width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise DataError(
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

    def rows(self, i: int) -> slice:
        """Where image i's boxes lie in boxes, labels and ignored."""
        return slice(self.offsets[i], self.offsets[i + 1])


@dataclass(frozen=True)
class _Entry:
    """One image with what its label file says."""

    path: Path
    label_name: str | None  # what messages call its labels; None: it has none
    size: tuple[int, int]  # height and width in the orientation that the labels mean
    as_stored: bool
    labels: LabelFile


def open_index(config: DataConfig, split_name: str, label_type: str) -> LabelIndex:
    """Read every label and image header of a split.

    Bad boxes are mended or dropped one by one and noted in the index's report; an image without a label file, or with
    an empty one, has no objects.

    Raises:
        DataError: folders are missing or empty, hold labels of another type, name unknown classes, or hold files that
            cannot be read (all are named at once).
    """
    split = config.split(split_name)
    there = list_images(split.images)
    if not there:
        raise DataError(f"{config.path}: no images in {split.images}: is {split_name.upper()}_DIR_IMAGES right?")
    report = LabelReport()
    paths = _listed(there, split.list, report) if split.list is not None else there
    label_of = {name: i for i, name in enumerate(config.classes) if i > 0}
    source = open_labels(split, label_type, label_of, paths)

    entries, broken = [], []
    report.add("rows of label files", source.notes)
    report.add("labels without image", source.without_image(there))
    for path in bar(paths, f"Reading {split_name} labels"):
        try:
            header = read_header(path)
            label_name = source.name(path)
            labels = source.read(path, header.shown) if label_name else LabelFile()
        except DataError as error:
            broken.append(str(error))
            continue
        if label_name is None:
            report.found["no labels, taken as without objects"].append(path.name)
        report.add("rows of label files", [f"{label_name}: {note}" for note in labels.notes])
        stored = labels.size == header.stored != header.shown
        size = header.stored if stored else header.shown
        if labels.size not in (None, size):
            report.found["image size in the label file is not the file's"].append(label_name)
        entries.append(_Entry(path, label_name, size, stored, labels))
    if broken:
        raise DataError(_several(broken, "files cannot be read"))
    _check_classes(config, split.labels, entries)
    return _assemble(split.images, entries, config.classes, report)


def _listed(images: list[Path], list_file: Path, report: LabelReport) -> list[Path]:
    """The images that a split list names, in its order; Pascal VOC's lists have more after the name, which is ignored.

    Raises:
        DataError: the list cannot be read, or names none of the images.
    """
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{list_file}: cannot be read as a list of image names ({error}): repair or drop it") from None
    image_of = {name: path for path in images for name in (path.stem, path.name)}
    listed: dict[Path, None] = {}  # an ordered set
    for number, line in enumerate(filter(None, map(str.strip, lines)), 1):
        path = image_of.get(line) or image_of.get(line.split()[0])
        if path is None:
            report.found["listed images that are not there"].append(f"{list_file.name}: entry {number}, {shown(line)}")
        else:
            listed[path] = None
    if not listed:
        raise DataError(
            f"{list_file}: names none of the images in {images[0].parent}: expected lines such as {images[0].stem}"
        )
    return list(listed)


def _assemble(folder: Path, entries: list[_Entry], classes: tuple[str, ...], report: LabelReport) -> LabelIndex:
    files = [entry.labels for entry in entries]
    image_sizes = np.array([entry.size for entry in entries], np.int64)
    counts = np.array([len(f.boxes) for f in files])
    image_of_box = np.repeat(np.arange(len(files)), counts)
    boxes, keep, problems = mend_boxes(
        np.array([box for f in files for box in f.boxes], np.float64), image_sizes[image_of_box]
    )
    for box in np.flatnonzero(problems != ""):
        kind = "boxes dropped" if problems[box] in DROPPED else "boxes mended"
        report.found[kind].append(f"{entries[image_of_box[box]].path.name}: {problems[box]}")
    kept = np.bincount(image_of_box[keep], minlength=len(files))
    return LabelIndex(
        folder=folder,
        names=np.array([entry.path.name for entry in entries]),
        sizes=image_sizes,
        as_stored=np.array([entry.as_stored for entry in entries], bool),
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        boxes=boxes[keep],
        labels=np.array([label for f in files for label in f.labels], np.int64)[keep],
        ignored=np.array([ignored for f in files for ignored in f.ignored], bool)[keep],
        classes=classes,
        report=report,
    )


def _check_classes(config: DataConfig, folder: Path, entries: list[_Entry]) -> None:
    """A class that the YAML lacks stops the run: the YAML is wrong more often than the labels."""
    unknown = Counter(name for entry in entries for name in entry.labels.unknown)
    if not unknown:
        return
    first = {name: entry.label_name for entry in reversed(entries) for name in entry.labels.unknown}
    shown = []
    for name, count in unknown.most_common(_NAMES_SHOWN):
        near = difflib.get_close_matches(name.strip("'"), config.classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown.append(f"{name} ({count} boxes, first in {first[name]}{hint})")
    more = f" and {len(unknown) - len(shown)} more" if len(shown) < len(unknown) else ""
    raise DataError(
        f"{folder}: labels of {len(unknown)} class(es) that CLASSES in {config.path} does not have: "
        f"{', '.join(shown)}{more}; CLASSES has {len(config.classes) - 1}: {', '.join(config.classes[1:])}"
    )


def _several(errors: list[str], what: str) -> str:
    if len(errors) == 1:
        return errors[0]
    more = f"; and {len(errors) - _NAMES_SHOWN} more" if len(errors) > _NAMES_SHOWN else ""
    return f"{len(errors)} {what}: " + "; ".join(errors[:_NAMES_SHOWN]) + more
