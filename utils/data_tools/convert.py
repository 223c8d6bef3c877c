"""Conversion of a data set to another label format: copied images, new labels and YAML files."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import yaml

from utils.errors import UserError
from utils.files import write_text
from utils.images.file_lists import stem
from utils.images.orientation import copy_with_normal_orientation
from utils.labels.data_config import DataConfig
from utils.labels.index import LabelIndex, open_index
from utils.labels.sources import COCO
from utils.labels.writers import write_coco, write_voc, write_yolo
from utils.progress import progress_bar
from utils.run_folder import given_folder

CONFIG = "data_config.yaml"  # for this pipeline
YOLO_CONFIG = "data.yaml"  # for tools that read YOLO data sets
log = logging.getLogger(__name__)


def convert(config: DataConfig, label_type: str, target: str, folder: Path, *, drop_unknown: bool = False) -> Path:
    """Write every split of a data set in another label format, with the boxes that training would use.

    Args:
        label_type: label format of the data set, one of LABEL_TYPES.
        target: label format to write, one of LABEL_TYPES.
        folder: see check_new_folder.
        drop_unknown: see open_index.

    Returns:
        Path of the new data_config.yaml.

    Raises:
        DataError: see open_index.
        UserError: see check_new_folder and write_splits.
    """
    check_new_folder(config, folder)
    indexes = {name: open_index(config, name, label_type, drop_unknown=drop_unknown) for name in config.splits}
    for name, index in indexes.items():
        index.log_summary(name)
    return write_splits(config, indexes, target, folder, flat=target != COCO)


def check_new_folder(config: DataConfig, folder: Path) -> None:
    """Check that a folder is empty, and neither contains nor lies in a folder of the data set; create it.

    Raises:
        UserError: it is not.
    """
    new = folder.resolve()
    for split in config.splits.values():
        for kind, path in (("images", split.images.resolve()), ("labels", split.labels.resolve())):
            if new == path or new in path.parents:
                raise UserError(f"{folder} holds the {kind} of this data set: choose another folder")
            if path in new.parents:
                raise UserError(f"{folder} is in {path}, with the {kind} of this data set: choose another folder")
    given_folder(folder)
    content = sorted(path.name for path in folder.iterdir())
    if content:
        raise UserError(f"{folder} is not empty ({content[0]} is in it): choose another folder, or empty this one")


def write_splits(
    config: DataConfig, indexes: Mapping[str, LabelIndex], target: str, folder: Path, *, flat: bool = False
) -> Path:
    """Write splits and their YAML file; images are copied byte for byte.

    Writes FOLDER/train/images, FOLDER/train/labels (COCO: FOLDER/train/annotations.json), the same for valid and test,
    and FOLDER/data_config.yaml. If the boxes of an image refer to its stored orientation, the EXIF orientation is
    removed from its copy.

    Args:
        config: of the data set; its keys are copied, except those of folders.
        indexes: split -> index to write.
        target: label format, one of LABEL_TYPES.
        flat: write images from subfolders directly into images/, since some YOLO and VOC tools look only there.

    Returns:
        Path of the new data_config.yaml.

    Raises:
        UserError: a file cannot be read or written.
    """
    paths: dict[str, str] = {}
    try:
        for name, index in indexes.items():
            names = _flat_names(index.files.names, name) if flat else index.files.names
            names = names if target == COCO else _unique_stems(names)
            copy = _Copy(index, names, folder / name / "images", folder / name / _LABELS[target])
            _copy_images(copy, name)
            _WRITE[target](copy)
            paths |= {f"{name.upper()}_DIR_IMAGES": str(copy.images), f"{name.upper()}_DIR_LABELS": str(copy.labels)}
        if target == "yolo":
            write_text(folder / YOLO_CONFIG, _yolo_yaml(folder, indexes, config.classes))
        other_keys = {key: value for key, value in config.raw.items() if not key.endswith(_FILE_KEYS)}
        content = {**paths, **other_keys, "CLASSES": list(config.classes), "NC": len(config.classes)}
        write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}: {folder} is incomplete, remove it") from None
    return folder / CONFIG


class _Copy(NamedTuple):
    """One split of the new data set."""

    index: LabelIndex
    names: Sequence[str]  # of the copied images
    images: Path
    labels: Path

    def label_file(self, image: int, suffix: str) -> Path:
        """Path of an image's label file; its folder is created."""
        path = self.labels / f"{stem(self.names[image])}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _flat_names(names: Sequence[str], split_name: str) -> Sequence[str]:
    """Names without their folders, or with "_" for "/" if two images would then share a label file."""
    if not any("/" in name for name in names):
        return names
    base_names = [PurePosixPath(name).name for name in names]
    ambiguous = len({stem(name).casefold() for name in base_names}) < len(base_names)
    flat = [name.replace("/", "_") for name in names] if ambiguous else base_names
    example = next(i for i, name in enumerate(names) if "/" in name)
    log.info("%s: writing all images into one folder, for example %s as %s", split_name, names[example], flat[example])
    return flat


def _unique_stems(names: Sequence[str]) -> Sequence[str]:
    """Names of images, changed if two, such as a.jpg and a.png, would share a label file."""
    taken = set(map(stem, names))
    if len(taken) == len(names):
        return names
    unique, used = [], set()
    for name in names:
        start, suffix = stem(name), PurePosixPath(name).suffix
        new, number = start, 1
        while new in used or (new != start and new in taken):
            new = f"{start}_{suffix[1:]}" + (f"_{number}" if number > 1 else "")
            number += 1
        if new != start:
            log.warning("%s is written as %s%s, so that it does not share a label file", name, new, suffix)
        used.add(new)
        unique.append(new + suffix)
    return unique


def _copy_images(copy: _Copy, split_name: str) -> None:
    copy.images.mkdir(parents=True, exist_ok=True)
    for i in progress_bar(range(len(copy.index)), f"Copying {split_name} images"):
        path = copy.images / copy.names[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        (copy_with_normal_orientation if copy.index.as_stored[i] else shutil.copyfile)(copy.index.path(i), path)


def _write_voc(copy: _Copy) -> None:
    index = copy.index
    thin = (index.boxes[:, 2:] - index.boxes[:, :2] <= 1).any(1)
    if thin.any():
        log.warning("Leaving out %d boxes at most a pixel wide or high, which VOC cannot represent", thin.sum())
    for i, rows in _rows(copy, ~thin):
        names = [index.classes[label] for label in index.labels[rows]]
        size, image_name = tuple(index.sizes[i].tolist()), PurePosixPath(copy.names[i]).name
        path = copy.label_file(i, ".xml")
        write_voc(path, image_name, size, index.boxes[rows], names, ignored=index.ignored[rows])


def _write_yolo(copy: _Copy) -> None:
    index = copy.index
    if index.ignored.any():
        log.warning("Leaving out %d difficult or crowd boxes, which YOLO cannot represent", index.ignored.sum())
    for i, rows in _rows(copy, ~index.ignored):
        size = tuple(index.sizes[i].tolist())
        write_yolo(copy.label_file(i, ".txt"), size, index.boxes[rows], index.labels[rows])


def _write_coco(copy: _Copy) -> None:
    write_coco(copy.labels, copy.index)


def _rows(copy: _Copy, mask: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Every image with the rows of its boxes that a (M,) mask selects; creates the label folder."""
    copy.labels.mkdir(parents=True, exist_ok=True)
    offsets = copy.index.offsets
    return [(i, offsets[i] + np.flatnonzero(mask[copy.index.rows(i)])) for i in range(len(copy.index))]


_LABELS: Mapping[str, str] = {"pascal_voc": "labels", "yolo": "labels", COCO: "annotations.json"}
_WRITE: Mapping[str, Callable[[_Copy], None]] = {"pascal_voc": _write_voc, "yolo": _write_yolo, COCO: _write_coco}
_FILE_KEYS = ("_DIR_IMAGES", "_DIR_LABELS", "_LIST", "GENERATE")  # endings of YAML keys that a copy does not get


def _yolo_yaml(folder: Path, indexes: Mapping[str, LabelIndex], classes: tuple[str, ...]) -> str:
    """YAML text in the format of https://docs.ultralytics.com/datasets/detect/."""
    keys = {"train": "train", "valid": "val", "test": "test"}
    content: dict[str, object] = {"path": str(folder.resolve())}
    content |= {keys[name]: f"{name}/images" for name in indexes}
    content["names"] = list(classes[1:])
    content["nc"] = len(classes) - 1
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
