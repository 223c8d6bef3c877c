"""Repaired copy of a data set: without the data that training drops, and with the repairs that training makes."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.data_tools import check as kinds
from utils.data_tools.check import DataCheck
from utils.data_tools.convert import write_splits
from utils.errors import DataError
from utils.images.file_lists import FileList
from utils.images.near_duplicates import same_bytes
from utils.images.notes import ALPHA, CMYK, EXIF, FRAMES, GRAY, HUGE, SIXTEEN_BITS
from utils.labels.boxes import CLIPPED, NO_AREA, NOT_FINITE, OUTSIDE, SWAPPED, repeated_boxes
from utils.labels.data_config import DataConfig
from utils.labels.index import LabelIndex, open_index

LEFT_OUT, REPAIRED, UNCHANGED = "left out", "repaired", "unchanged"
ACTIONS: Mapping[str, str] = {  # kind of problem -> its treatment in the copy
    **dict.fromkeys((kinds.BAD_IMAGE, kinds.BAD_LABELS, *kinds.UNKNOWN_CLASS_KINDS), LEFT_OUT),
    **dict.fromkeys((kinds.BOXES[NOT_FINITE], kinds.BOXES[NO_AREA], kinds.BOXES[OUTSIDE]), LEFT_OUT),
    **dict.fromkeys((kinds.ROW_DROPPED, kinds.NO_IMAGE, kinds.NOT_FOUND), LEFT_OUT),
    **dict.fromkeys((kinds.NOT_LISTED, kinds.UNSUPPORTED_FORMAT), LEFT_OUT),
    **dict.fromkeys((kinds.SECOND_LABELS, kinds.DUPLICATE_BOX, kinds.DUPLICATE_IMAGE), LEFT_OUT),
    **dict.fromkeys((kinds.BOXES[SWAPPED], kinds.BOXES[CLIPPED], kinds.ROW_REPAIRED, kinds.WRONG_SIZE), REPAIRED),
    **dict.fromkeys((kinds.SHARED_LABELS, kinds.NO_LABELS), REPAIRED),
    **dict.fromkeys((kinds.NEAR_ACROSS, kinds.NEAR_DUPLICATE), UNCHANGED),
    **dict.fromkeys((EXIF, SIXTEEN_BITS, GRAY, CMYK, ALPHA, FRAMES, HUGE), UNCHANGED),
}
_PARTLY_LEFT_OUT = "label files' boxes of classes missing from CLASSES"  # the files themselves stay
_LEAKED = "images of train that valid or test has too, byte for byte"
_LEAKED_ELSEWHERE = "images that valid and test both have"
_TURNED = "EXIF orientations that the boxes do not follow"
log = logging.getLogger(__name__)


def repair_data(config: DataConfig, checked: DataCheck, folder: Path) -> Path:
    """Write a repaired copy of a data set in the same label format, and log the changes.

    The copy has all images that can be decoded, each with its own label file, and all training boxes, without
    duplicates. Of byte-identical images, each split keeps the one with most boxes. train keeps none that valid or test
    has: those stay where they are, so that results remain comparable.

    Args:
        checked: result of the check, with near duplicates.
        folder: a new folder, see check_new_folder in utils/data_tools/convert.py.

    Returns:
        Path of the copy's YAML file.

    Raises:
        DataError: a split cannot be opened, or would be empty.
        UserError: see write_splits.
    """
    unreadable = {problem.path for problem in checked.problems if problem.kind == kinds.BAD_IMAGE}
    indexes, changes = {}, Counter(_changes(checked))
    for name in config.splits:
        index = open_index(config, name, checked.label_type, drop_unknown=True)
        decoded = np.array([str(path) not in unreadable for path in index.files])
        indexes[name] = _selected(index, decoded, np.ones(len(index.boxes), bool))
    kept = _without_duplicates(indexes, changes)
    repaired = {name: _selected(index, kept[name], _unique_boxes(index)) for name, index in indexes.items()}
    for name, index in repaired.items():
        if not len(index):
            raise DataError(f"{config.path}: no image of {name} would be left: see the problems above")
    path = write_splits(config, repaired, checked.label_type, folder)
    turned = sum(int(index.as_stored.sum()) for index in repaired.values())
    changes[REPAIRED, _TURNED] = turned
    changes[UNCHANGED, EXIF] -= turned
    _log(checked, repaired, changes)
    return path


def _changes(checked: DataCheck) -> Iterator[tuple[str, str]]:
    """Treatment and kind of every problem, except duplicate images, which the copy itself counts."""
    for problem in checked.problems:
        if problem.kind in ACTIONS and problem.kind != kinds.DUPLICATE_IMAGE:
            in_part = problem.kind in kinds.UNKNOWN_CLASS_KINDS
            yield ACTIONS[problem.kind], _PARTLY_LEFT_OUT if in_part else problem.kind


def _selected(index: LabelIndex, images: np.ndarray, boxes: np.ndarray) -> LabelIndex:
    """The index with only the images and boxes selected by (N,) and (M,) bool masks."""
    image_of_box = index.image_of_box()
    rows = boxes & images[image_of_box]
    counts = np.bincount(image_of_box[rows], minlength=len(index))[images]
    return replace(
        index,
        files=FileList(index.folder, (index.files.names[i] for i in np.flatnonzero(images).tolist())),
        sizes=index.sizes[images],
        as_stored=index.as_stored[images],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=index.boxes[rows],
        labels=index.labels[rows],
        ignored=index.ignored[rows],
    )


def _without_duplicates(indexes: Mapping[str, LabelIndex], changes: Counter) -> dict[str, np.ndarray]:
    """(N,) bool for every split: images to keep; adds the duplicates to `changes`."""
    locations = [(name, i) for name, index in indexes.items() for i in range(len(index))]
    kept = {name: np.ones(len(index), bool) for name, index in indexes.items()}
    for group in same_bytes([indexes[name].path(i) for name, i in locations]):
        by_split: dict[str, list[int]] = defaultdict(list)
        for name, i in (locations[number] for number in group):
            by_split[name].append(i)
        for name, images in by_split.items():
            kept[name][images] = False
            if name == "train" and len(by_split) > 1:
                changes[LEFT_OUT, _LEAKED] += len(images)
                continue
            offsets = indexes[name].offsets
            kept[name][max(images, key=lambda i, offsets=offsets: offsets[i + 1] - offsets[i])] = True
            changes[LEFT_OUT, kinds.DUPLICATE_IMAGE] += len(images) - 1
        changes[UNCHANGED, _LEAKED_ELSEWHERE] += {"valid", "test"} <= by_split.keys()
    return kept


def _unique_boxes(index: LabelIndex) -> np.ndarray:
    """(M,) bool: False for repetitions of a box. Of equal boxes, one that is not ignored is kept if possible."""
    image_of_box, unique = index.image_of_box(), np.ones(len(index.boxes), bool)
    order = np.lexsort((index.ignored, image_of_box))
    first = repeated_boxes(image_of_box[order], index.labels[order], index.boxes[order])
    unique[order[first >= 0]] = False
    return unique


def _log(checked: DataCheck, repaired: Mapping[str, LabelIndex], changes: Counter) -> None:
    log.info("Repaired copy:")
    for name, index in repaired.items():
        reading = checked.readings[name]
        images, boxes = len(reading.files.images), len(reading.boxes)
        log.info("  %s: %d of %d images, %d of %d boxes", name, len(index), images, len(index.boxes), boxes)
    for action in (LEFT_OUT, REPAIRED, UNCHANGED):
        for (treatment, kind), count in changes.items():
            if treatment == action and count > 0:
                log.info("  %s: %d %s", action, count, kind)
    unknown = sum((Counter(split.unknown_classes) for split in checked.splits.values()), Counter())
    if unknown:
        names = ", ".join(f"{name} ({count} boxes)" for name, count in unknown.most_common())
        log.warning("Left out with all their boxes: %s; if CLASSES is wrong, correct it and repair again", names)
