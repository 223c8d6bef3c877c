"""A data set in another label format: images copied, labels written anew, YAML files beside them."""

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
    """Write every split that the config has; boxes are those that a training would use.

    Args:
        label_type, target: of LABEL_TYPES.
        drop_unknown: see open_index.

    Returns:
        The path of data_config.yaml.

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
    """Refuse a folder that has something in it, or that is above or in one of the data set's own.

    Raises:
        UserError: saying which.
    """
    new = folder.resolve()
    for split in config.splits.values():
        for kind, path in (("images", split.images.resolve()), ("labels", split.labels.resolve())):
            if new == path or new in path.parents:
                raise UserError(f"{folder} holds the {kind} of this data set: choose another folder")
            if path in new.parents:
                raise UserError(f"{folder} is in {path}, with the {kind} of this data set: choose another folder")
    given_folder(folder)
    there = sorted(path.name for path in folder.iterdir())
    if there:
        raise UserError(f"{folder} is not empty ({there[0]} is in it): choose another folder, or empty this one")


def write_splits(
    config: DataConfig, indexes: Mapping[str, LabelIndex], target: str, folder: Path, *, flat: bool = False
) -> Path:
    """Write splits, images copied byte for byte, and the YAML for them.

    FOLDER/train/images, FOLDER/train/labels (for COCO FOLDER/train/annotations.json), the same of valid and test, and
    FOLDER/data_config.yaml. Where the boxes of an image mean its stored orientation, its copy has no other.

    Args:
        config: of the data set; what it says beside the folders is in the new one too.
        target: of LABEL_TYPES.
        flat: images in folders of images/ go into images/ itself: some tools for YOLO and VOC look there alone.

    Returns:
        The path of data_config.yaml.

    Raises:
        UserError: a file cannot be read or written.
    """
    paths: dict[str, str] = {}
    try:
        for name, index in indexes.items():
            names = _flat_names(index.files.names, name) if flat else index.files.names
            own = names if target == COCO else _own_names(names)
            copy = _Copy(index, own, folder / name / "images", folder / name / _LABELS[target])
            _copy_images(copy, name)
            _WRITE[target](copy)
            paths |= {f"{name.upper()}_DIR_IMAGES": str(copy.images), f"{name.upper()}_DIR_LABELS": str(copy.labels)}
        if target == "yolo":
            write_text(folder / YOLO_CONFIG, _yolo_yaml(folder, indexes, config.classes))
        kept = {key: value for key, value in config.raw.items() if not key.endswith(_ABOUT_FILES)}
        content = {**paths, **kept, "CLASSES": list(config.classes), "NC": len(config.classes)}
        write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}: {folder} is not complete, remove it") from None
    return folder / CONFIG


class _Copy(NamedTuple):
    """One split of the new data set."""

    index: LabelIndex
    names: Sequence[str]  # of the images' copies
    images: Path
    labels: Path

    def label_file(self, image: int, suffix: str) -> Path:
        """Where an image's labels go; its folder is there."""
        path = self.labels / f"{stem(self.names[image])}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _flat_names(names: Sequence[str], split_name: str) -> Sequence[str]:
    """Names without their folders, or with "_" for "/" where two images would then share a label file."""
    if not any("/" in name for name in names):
        return names
    last = [PurePosixPath(name).name for name in names]
    same = len({stem(name).casefold() for name in last}) < len(last)
    flat = [name.replace("/", "_") for name in names] if same else last
    example = next(i for i, name in enumerate(names) if "/" in name)
    log.info("%s: images are written into one folder, %s as %s", split_name, names[example], flat[example])
    return flat


def _own_names(names: Sequence[str]) -> Sequence[str]:
    """Names of images, changed where a.jpg and a.png would share a label file."""
    taken = set(map(stem, names))
    if len(taken) == len(names):
        return names
    own, seen = [], set()
    for name in names:
        start, suffix = stem(name), PurePosixPath(name).suffix
        new, number = start, 1
        while new in seen or (new != start and new in taken):
            new = f"{start}_{suffix[1:]}" + (f"_{number}" if number > 1 else "")
            number += 1
        if new != start:
            log.warning("%s is written as %s%s, to have a label file of its own", name, new, suffix)
        seen.add(new)
        own.append(new + suffix)
    return own


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
        log.warning("%d boxes are not wider or higher than a pixel, which VOC cannot say: left out", thin.sum())
    for i, rows in _rows(copy, ~thin):
        names = [index.classes[label] for label in index.labels[rows]]
        size, image_name = tuple(index.sizes[i].tolist()), PurePosixPath(copy.names[i]).name
        path = copy.label_file(i, ".xml")
        write_voc(path, image_name, size, index.boxes[rows], names, ignored=index.ignored[rows])


def _write_yolo(copy: _Copy) -> None:
    index = copy.index
    if index.ignored.any():
        log.warning("%d difficult or crowd boxes, for which YOLO has no mark: left out", index.ignored.sum())
    for i, rows in _rows(copy, ~index.ignored):
        size = tuple(index.sizes[i].tolist())
        write_yolo(copy.label_file(i, ".txt"), size, index.boxes[rows], index.labels[rows])


def _write_coco(copy: _Copy) -> None:
    write_coco(copy.labels, copy.index)


def _rows(copy: _Copy, wanted: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Every image, and where those of its boxes are that are wanted."""
    copy.labels.mkdir(parents=True, exist_ok=True)
    offsets = copy.index.offsets
    return [(i, offsets[i] + np.flatnonzero(wanted[copy.index.rows(i)])) for i in range(len(copy.index))]


_LABELS: Mapping[str, str] = {"pascal_voc": "labels", "yolo": "labels", COCO: "annotations.json"}
_WRITE: Mapping[str, Callable[[_Copy], None]] = {"pascal_voc": _write_voc, "yolo": _write_yolo, COCO: _write_coco}
_ABOUT_FILES = ("_DIR_IMAGES", "_DIR_LABELS", "_LIST", "GENERATE")  # keys of a YAML that are not for a copy


def _yolo_yaml(folder: Path, indexes: Mapping[str, LabelIndex], classes: tuple[str, ...]) -> str:
    """As Ultralytics documents it: https://docs.ultralytics.com/datasets/detect/."""
    keys = {"train": "train", "valid": "val", "test": "test"}
    content: dict[str, object] = {"path": str(folder.resolve())}
    content |= {keys[name]: f"{name}/images" for name in indexes}
    content["names"] = list(classes[1:])
    content["nc"] = len(classes) - 1
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
