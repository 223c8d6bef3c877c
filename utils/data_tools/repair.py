"""A mended copy of a data set: without what a training would leave out, and with what it would mend, mended."""

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

LEFT_OUT, MENDED, AS_BEFORE = "left out", "mended", "as before"
DONE: Mapping[str, str] = {  # kind of problem -> what the copy does about it
    **dict.fromkeys((kinds.BAD_IMAGE, kinds.BAD_LABELS, kinds.CLASS, kinds.NUMBER, kinds.CLASS_DROPPED), LEFT_OUT),
    **dict.fromkeys((kinds.BOXES[NOT_FINITE], kinds.BOXES[NO_AREA], kinds.BOXES[OUTSIDE]), LEFT_OUT),
    **dict.fromkeys((kinds.ROW_DROPPED, kinds.NO_IMAGE, kinds.NOT_THERE), LEFT_OUT),
    **dict.fromkeys((kinds.NOT_LISTED, kinds.FORMAT), LEFT_OUT),
    **dict.fromkeys((kinds.TWO_LABELS, kinds.REPEATED, kinds.COPY), LEFT_OUT),
    **dict.fromkeys((kinds.BOXES[SWAPPED], kinds.BOXES[CLIPPED], kinds.ROW_MENDED, kinds.SIZE), MENDED),
    **dict.fromkeys((kinds.SHARED, kinds.NO_LABELS), MENDED),
    **dict.fromkeys((kinds.NEAR_ACROSS, kinds.NEAR, EXIF, SIXTEEN_BITS, GRAY, CMYK, ALPHA, FRAMES, HUGE), AS_BEFORE),
}
_CLASSES = dict.fromkeys(  # kinds that count label files, of which some boxes alone are left out
    (kinds.CLASS, kinds.NUMBER, kinds.CLASS_DROPPED), "label files' boxes of classes that CLASSES lacks"
)
_LEAKED = "images of train that valid or test has too, byte for byte"
_LEAKED_ELSEWHERE = "images that valid and test both have"
_TURNED = "EXIF orientations that the boxes do not follow"
log = logging.getLogger(__name__)


def mend_data(config: DataConfig, checked: DataCheck, folder: Path) -> Path:
    """Write the copy, in the same label format, and log what was done.

    It has the images that can be decoded, each with a label file of its own, and the boxes that a training would use,
    each once. Of images that are the same byte for byte, a split has one, that with the most boxes, and train none
    that valid or test has: theirs stay, so that results remain comparable.

    Args:
        checked: the check of it, with near duplicates.
        folder: see check_new_folder in utils/data_tools/convert.py.

    Returns:
        The path of the YAML.

    Raises:
        DataError: a split cannot be opened, or nothing of it is left.
        UserError: see write_splits.
    """
    unreadable = {problem.place for problem in checked.problems if problem.kind == kinds.BAD_IMAGE}
    indexes, done = {}, Counter(_done(checked))
    for name in config.splits:
        index = open_index(config, name, checked.label_type, drop_unknown=True)
        decoded = np.array([str(path) not in unreadable for path in index.files])
        indexes[name] = _selected(index, decoded, np.ones(len(index.boxes), bool))
    wanted = _without_copies(indexes, done)
    mended = {name: _selected(index, wanted[name], _once(index)) for name, index in indexes.items()}
    for name, index in mended.items():
        if not len(index):
            raise DataError(f"{config.path}: no image of {name} would be left: see what was found above")
    path = write_splits(config, mended, checked.label_type, folder)
    turned = sum(int(index.as_stored.sum()) for index in mended.values())
    done[MENDED, _TURNED] = turned
    done[AS_BEFORE, EXIF] -= turned
    _log(checked, mended, done)
    return path


def _done(checked: DataCheck) -> Iterator[tuple[str, str]]:
    """What the copy does about every problem: one of this module's words, and the kind."""
    for problem in checked.problems:
        if problem.kind in DONE and problem.kind != kinds.COPY:
            yield DONE[problem.kind], _CLASSES.get(problem.kind, problem.kind)


def _selected(index: LabelIndex, images: np.ndarray, boxes: np.ndarray) -> LabelIndex:
    """The index with only some (N,) of its images, and of their boxes (M,)."""
    owner = index.image_of_box()
    rows = boxes & images[owner]
    counts = np.bincount(owner[rows], minlength=len(index))[images]
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


def _without_copies(indexes: Mapping[str, LabelIndex], done: Counter) -> dict[str, np.ndarray]:
    """(N,) bool for every split: which images stay."""
    places = [(name, i) for name, index in indexes.items() for i in range(len(index))]
    wanted = {name: np.ones(len(index), bool) for name, index in indexes.items()}
    for group in same_bytes([indexes[name].path(i) for name, i in places]):
        of_split: dict[str, list[int]] = defaultdict(list)
        for name, i in (places[number] for number in group):
            of_split[name].append(i)
        for name, images in of_split.items():
            wanted[name][images] = False
            if name == "train" and len(of_split) > 1:
                done[LEFT_OUT, _LEAKED] += len(images)
                continue
            index = indexes[name]
            wanted[name][max(images, key=lambda i: index.offsets[i + 1] - index.offsets[i])] = True
            done[LEFT_OUT, kinds.COPY] += len(images) - 1
        done[AS_BEFORE, _LEAKED_ELSEWHERE] += {"valid", "test"} <= of_split.keys()
    return wanted


def _once(index: LabelIndex) -> np.ndarray:
    """(M,) bool: False for boxes that are there twice; one that training ignores gives way to one that it does not."""
    owner, once = index.image_of_box(), np.ones(len(index.boxes), bool)
    order = np.lexsort((index.ignored, owner))
    twin = repeated_boxes(owner[order], index.labels[order], index.boxes[order])
    once[order[twin >= 0]] = False
    return once


def _log(checked: DataCheck, mended: Mapping[str, LabelIndex], done: Counter) -> None:
    log.info("In the mended copy:")
    for name, index in mended.items():
        reading = checked.readings[name]
        images, boxes = len(reading.files.images), len(reading.boxes)
        log.info("  %s: %d of %d images, %d of %d boxes", name, len(index), images, len(index.boxes), boxes)
    for wanted in (LEFT_OUT, MENDED, AS_BEFORE):
        for (what, kind), count in done.items():
            if what == wanted and count > 0:
                log.info("  %s: %d %s", what, count, kind)
    unknown = sum((Counter(split.unknown_classes) for split in checked.splits.values()), Counter())
    if unknown:
        names = ", ".join(f"{name} ({count} boxes)" for name, count in unknown.most_common())
        log.warning("Left out with all their boxes: %s; if CLASSES is what is wrong, correct it and mend anew", names)
