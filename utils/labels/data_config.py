"""Read and check a data set's YAML file into a DataConfig. docs/datasets.md explains every key to users."""

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.errors import DataError
from utils.safe_yaml import Document, parse_yaml, read_yaml, short_repr
from utils.text import did_you_mean

BACKGROUND = "__background__"
SPLITS = ("train", "valid", "test")
_FOLDER_KEYS = tuple(f"{split.upper()}_DIR_{kind}" for split in SPLITS for kind in ("IMAGES", "LABELS"))
_LIST_KEYS = tuple(f"{split.upper()}_LIST" for split in SPLITS)
_TYPES: dict[str, type] = dict.fromkeys((*_FOLDER_KEYS, *_LIST_KEYS), str) | {
    "CLASSES": list,
    "NC": int,
    "SAVE_VALID_PREDICTION_IMAGES": bool,
    "COCO_91_CLASSES": list,
    "GENERATE": str,  # our own key: a synthetic data set, generated on first use
    "image_path": str,
    "video_path": str,
}
_OF_ULTRALYTICS = ("path", "train", "val", "test", "names", "nc")
_TYPE_NAMES = {str: "text", list: "a list", int: "a whole number", bool: "true or false"}
_MAX_NAME = 200  # characters of a class name
_MAX_QUOTED = 1000  # characters of a path that a message quotes
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control, surrogate, line and paragraph separator


@dataclass(frozen=True)
class Split:
    """Locations of one split. Images and labels may share a folder."""

    images: Path  # folder
    labels: Path  # folder, or COCO's json
    list: Path | None = None  # text file with image names, one a line, without suffix; None: all images


@dataclass(frozen=True)
class DataConfig:
    """Checked content of a data YAML. Paths are relative to the working directory."""

    path: Path
    classes: tuple[str, ...]  # classes[0] is the background
    splits: Mapping[str, Split]
    save_valid_prediction_images: bool
    generate: str | None
    image_path: str | None
    video_path: str | None
    raw: Mapping[str, Any]  # the whole YAML; checkpoints store it

    def split(self, name: str) -> Split:
        """Return the split train, valid or test.

        Raises:
            DataError: the YAML lacks it, or one of its folders or files does not exist.
        """
        if name not in self.splits:
            keys = f"{name.upper()}_DIR_IMAGES and {name.upper()}_DIR_LABELS"
            raise DataError(
                f"{self.path}: {keys} are missing: add them, as in data_configs/smoke.yaml, or give another --data"
            )
        split = self.splits[name]
        for kind, folder in (("IMAGES", split.images), ("LABELS", split.labels)):
            is_json = kind == "LABELS" and os.path.isfile(folder)
            if not os.path.isdir(folder) and not is_json:  # os.path accepts any text, Path.is_dir does not
                problem = "is not a folder" if os.path.exists(folder) else "does not exist"
                raise DataError(
                    f"{self.path}: {name.upper()}_DIR_{kind} is {repr(str(folder))[:_MAX_QUOTED]}, which {problem} "
                    f"(paths are relative to the working directory, {Path.cwd()})"
                )
        return split


def load_data_config(path: str | Path) -> DataConfig:
    """Read and check a data YAML.

    Raises:
        DataError: the message has file, line if known, value and remedy.
    """
    path = Path(path)
    document = parse_yaml(read_yaml(path, "a data YAML"), path)
    raw = document.content
    if not isinstance(raw, dict):
        raise DataError(f"{path}: expected keys such as CLASSES and TRAIN_DIR_IMAGES, got {type(raw).__name__}")
    return parse_data_config(raw, path, _lines(document))


def parse_data_config(raw: Mapping[str, Any], path: Path, lines: Mapping[str, int] | None = None) -> DataConfig:
    """Make a DataConfig from the content of a YAML; `path` and `lines` (key -> line number) are for messages."""
    lines = lines or {}
    for key, value in raw.items():
        where = f"{path}:{lines[key]}" if key in lines else str(path)
        _check_value(where, key, value)
    where = f"{path}:{lines['CLASSES']}" if "CLASSES" in lines else str(path)
    return DataConfig(
        path=path,
        classes=_classes(where, raw),
        splits=_splits(path, raw),
        save_valid_prediction_images=raw.get("SAVE_VALID_PREDICTION_IMAGES", False),
        generate=raw.get("GENERATE"),
        image_path=raw.get("image_path"),
        video_path=raw.get("video_path"),
        raw=dict(raw),
    )


def _lines(document: Document) -> dict[str, int]:
    """Line number, from 1, of every top-level key."""
    keys = [key for key, _ in document.root.value] if isinstance(document.root, yaml.MappingNode) else []
    return {key.value: key.start_mark.line + 1 for key in keys if isinstance(key, yaml.ScalarNode)}


def _check_value(where: str, key: str, value: Any) -> None:
    if key in _OF_ULTRALYTICS:
        raise DataError(
            f"{where}: unknown key {key}: this seems to be a data YAML of Ultralytics; write TRAIN_DIR_IMAGES, "
            "TRAIN_DIR_LABELS and so on, as in data_configs/aquarium_yolo.yaml (datasets.py convert writes such a "
            "data_config.yaml beside its output)"
        )
    if key not in _TYPES:
        hint = did_you_mean(str(key), _TYPES) or f"; known keys: {', '.join(_TYPES)}"
        raise DataError(f"{where}: unknown key {short_repr(key)}{hint}")
    expected = _TYPES[key]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise DataError(f"{where}: {key} is {short_repr(value)}, expected {_TYPE_NAMES[expected]}")
    if expected is str and not _can_be_path(value):
        raise DataError(f"{where}: {key} is {short_repr(value)}, which cannot be a path")


def _can_be_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a character
        return False


def _classes(where: str, raw: Mapping[str, Any]) -> tuple[str, ...]:
    if "CLASSES" not in raw:
        raise DataError(f"{where}: CLASSES is missing: list {BACKGROUND!r} first, then your class names")
    names = raw["CLASSES"]
    for name in names:
        if not isinstance(name, str):
            raise DataError(
                f"{where}: CLASSES has {short_repr(name)}, which YAML reads as {type(name).__name__}: put it in quotes"
            )
        if len(name) > _MAX_NAME or any(unicodedata.category(character) in _UNPRINTABLE for character in name):
            raise DataError(
                f"{where}: CLASSES has {short_repr(name)}: a name is one line of at most {_MAX_NAME} characters"
            )
    if not names or names[0] != BACKGROUND:
        raise DataError(f"{where}: CLASSES starts with {names[0] if names else None!r}: put {BACKGROUND!r} before it")
    if len(names) < 2:
        raise DataError(f"{where}: CLASSES has only {BACKGROUND!r}: add the names of your classes")
    twice = sorted(name for name, n in Counter(names).items() if n > 1 and name != "N/A")  # COCO's 91 names repeat N/A
    if twice:
        raise DataError(f"{where}: CLASSES names {twice[0]!r} twice: drop one")
    nc = raw.get("NC", len(names))
    if nc != len(names):
        raise DataError(
            f"{where}: CLASSES has {len(names)} entries but NC is {nc}; NC counts {BACKGROUND}: "
            f"set NC: {len(names)}, or drop NC"
        )
    return tuple(names)


def _splits(path: Path, raw: Mapping[str, Any]) -> dict[str, Split]:
    splits = {}
    for split in SPLITS:
        images, labels = f"{split.upper()}_DIR_IMAGES", f"{split.upper()}_DIR_LABELS"
        if (images in raw) != (labels in raw):
            present, absent = (images, labels) if images in raw else (labels, images)
            raise DataError(f"{path}: {present} is given but {absent} is missing: add it (both may name one folder)")
        if images in raw:
            names = raw.get(f"{split.upper()}_LIST")
            splits[split] = Split(Path(raw[images]), Path(raw[labels]), Path(names) if names is not None else None)
    return splits
