"""A data set in another label format: images copied, labels written anew, YAML files beside them."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml

from utils.data_config import DataConfig
from utils.errors import DataError, UserError
from utils.file_names import stem
from utils.files import write_text
from utils.label_index import LabelIndex, open_index
from utils.label_sources import COCO
from utils.label_writers import write_coco, write_voc, write_yolo
from utils.progress import bar
from utils.run_folder import given_folder

CONFIG = "data_config.yaml"  # for this pipeline
YOLO_CONFIG = "data.yaml"  # for tools that read YOLO data sets
log = logging.getLogger(__name__)


def convert(config: DataConfig, label_type: str, target: str, folder: Path, *, drop_unknown: bool = False) -> Path:
    """Write every split that the config has.

    FOLDER/train/images, FOLDER/train/labels (for COCO FOLDER/train/annotations.json), the same of valid and test, and
    FOLDER/data_config.yaml. Boxes are those that a training would use: mended, and without what had to be dropped.

    Args:
        label_type, target: of LABEL_TYPES.
        drop_unknown: see open_index.

    Returns:
        The path of data_config.yaml.

    Raises:
        DataError: see open_index; or two images would share a label file.
        UserError: the folder holds a converted data set already, or images of this one.
    """
    indexes = {name: open_index(config, name, label_type, drop_unknown=drop_unknown) for name in config.splits}
    for name, index in indexes.items():
        index.log_summary(name)
        if target != COCO:
            _check_stems(index)
    if any(folder.resolve() in (index.folder.resolve(), *index.folder.resolve().parents) for index in indexes.values()):
        raise UserError(f"{folder} holds the images to convert: choose another folder")
    given_folder(folder, CONFIG)
    paths: dict[str, str] = {}
    for name, index in indexes.items():
        images, labels = folder / name / "images", folder / name / _LABELS[target]
        images.mkdir(parents=True, exist_ok=True)
        for i in bar(range(len(index)), f"Copying {name} images"):
            copy = images / index.files.names[i]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(index.path(i), copy)
        _WRITE[target](labels, index)
        paths |= {f"{name.upper()}_DIR_IMAGES": str(images), f"{name.upper()}_DIR_LABELS": str(labels)}
    if target == "yolo":
        write_text(folder / YOLO_CONFIG, _yolo_yaml(folder, indexes, config.classes))
    content = {**paths, "CLASSES": list(config.classes), "NC": len(config.classes)}
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return folder / CONFIG


def _write_voc_folder(folder: Path, index: LabelIndex) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    thin = (index.boxes[:, 2:] - index.boxes[:, :2] <= 1).any(1)
    if thin.any():
        log.warning("%d boxes are not wider or higher than a pixel, which VOC cannot say: left out", thin.sum())
    for i in range(len(index)):
        rows = np.arange(len(index.boxes))[index.rows(i)]
        rows = rows[~thin[rows]]
        name, names = index.files.names[i], [index.classes[label] for label in index.labels[rows]]
        path, size = folder / f"{stem(name)}.xml", tuple(index.sizes[i].tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_voc(path, name.rpartition("/")[2], size, index.boxes[rows], names, ignored=index.ignored[rows])


def _write_yolo_folder(folder: Path, index: LabelIndex) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if index.ignored.any():
        log.warning("%d difficult or crowd boxes, for which YOLO has no mark: left out", index.ignored.sum())
    if index.as_stored.any():
        log.warning(
            "%d images (%s first) have labels of their stored orientation, which YOLO cannot say: drop its EXIF first",
            index.as_stored.sum(),
            index.files.names[int(index.as_stored.argmax())],
        )
    for i in range(len(index)):
        rows = np.arange(len(index.boxes))[index.rows(i)]
        rows = rows[~index.ignored[rows]]
        size = tuple(index.sizes[i].tolist())
        path = folder / f"{stem(index.files.names[i])}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_yolo(path, size, index.boxes[rows], index.labels[rows])


_LABELS: Mapping[str, str] = {"pascal_voc": "labels", "yolo": "labels", COCO: "annotations.json"}
_WRITE: Mapping[str, Callable[[Path, LabelIndex], None]] = {
    "pascal_voc": _write_voc_folder,
    "yolo": _write_yolo_folder,
    COCO: write_coco,
}


def _check_stems(index: LabelIndex) -> None:
    """Two images, a.jpg and a.png, have one label file."""
    name, count = Counter(map(stem, index.files.names)).most_common(1)[0]
    if count > 1:
        raise DataError(f"{index.folder}: {count} images are named {name}, and would share a label file: rename them")


def _yolo_yaml(folder: Path, indexes: Mapping[str, LabelIndex], classes: tuple[str, ...]) -> str:
    """As Ultralytics documents it: https://docs.ultralytics.com/datasets/detect/."""
    keys = {"train": "train", "valid": "val", "test": "test"}
    content: dict[str, object] = {"path": str(folder.resolve())}
    content |= {keys[name]: f"{name}/images" for name in indexes}
    content["names"] = list(classes[1:])
    content["nc"] = len(classes) - 1
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
