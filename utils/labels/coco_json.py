"""Read COCO json (https://cocodataset.org/#format-data): one file with the boxes of all images of a split."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.errors import DataError
from utils.files import file_size
from utils.images.file_lists import NameList, match_names
from utils.labels.readers import MAX_SIDE, UNKNOWN, LabelFile, excerpt

_MAX_BYTES = 4 << 30  # train2017 of COCO is 0.45 GB
_MAX_NOTES = 1000  # of a kind
_PARTS = ("images", "annotations", "categories")


class CocoLabels:
    """Content of a COCO json as flat arrays, by image file name."""

    suffix = ".json"

    def __init__(self, path: Path, label_of: Mapping[str, int]) -> None:
        """Read the file.

        Args:
            label_of: class name -> index into CLASSES.

        Raises:
            DataError: it is not COCO json. Invalid entries are skipped and noted.
        """
        self.path = path
        content = _load(path)
        images, annotations, categories = (_part(path, content, key) for key in _PARTS)
        self.notes: list[str] = []
        self._noted: Counter[tuple[str, str]] = Counter()
        self.duplicates: list[str] = []
        self._names: dict[Any, str] = {}
        for number, entry in enumerate(categories):
            key, name = _key(entry.get("id")), str(entry.get("name", ""))
            if key is not None and self._names.setdefault(key, name) != name:
                self._note("categories", number, "has id {} again, dropped", key)
        sizes: dict[str, tuple[int, int] | None] = {}
        number_of_id: dict[Any, int] = {}
        for number, entry in enumerate(images):
            key, name = _key(entry.get("id")), _file_name(entry)
            if name is None:
                self._note("images", number, "has no file_name, dropped")
            elif name in sizes:
                self._note("images", number, "is {} again, dropped", name)
            elif key in number_of_id:
                self._note("images", number, "has id {} again, dropped", key)
            else:
                if key is not None:
                    number_of_id[key] = len(sizes)
                sizes[name] = _size(entry)
        self.names = NameList(sizes)
        self._sizes = list(sizes.values())
        self._gather(annotations, number_of_id, label_of)
        for (part, text), count in self._noted.items():
            if count > _MAX_NOTES:
                self.notes.append(f"{count - _MAX_NOTES:,} more of {part}: each {text.format('...')}")

    def _note(self, part: str, number: int, text: str, value: object = "") -> None:
        self._noted[part, text] += 1
        if self._noted[part, text] <= _MAX_NOTES:
            self.notes.append(f"{part}[{number}] {text.format(excerpt(str(value)))}")

    def _gather(self, annotations: list[dict], number_of_id: Mapping[Any, int], label_of: Mapping[str, int]) -> None:
        """Collect boxes, labels, crowd flags and category ids, sorted by image."""
        owners, boxes, labels, crowd, categories = [], [], [], [], []
        for number, entry in enumerate(annotations):
            owner, box = number_of_id.get(_key(entry.get("image_id"))), _box(entry)
            category = _key(entry.get("category_id"))
            if owner is None:
                self._note("annotations", number, "is of no image in the file, dropped")
            elif box is None:
                self._note("annotations", number, "has no bbox of four numbers, dropped")
            else:
                owners.append(owner)
                boxes.append(box)
                labels.append(label_of.get(self._names.get(category, ""), UNKNOWN))
                crowd.append(bool(entry.get("iscrowd")))
                categories.append(category)
        order = np.argsort(np.array(owners, np.int64), kind="stable")
        self._boxes = np.array(boxes, np.float64).reshape(-1, 4)[order]
        self._labels = np.array(labels, np.int64)[order]
        self._crowd = np.array(crowd, bool)[order]
        self._unknown = {row: categories[i] for row, i in enumerate(order.tolist()) if labels[i] == UNKNOWN}
        counts = np.bincount(np.array(owners, np.int64), minlength=len(self._sizes))
        self._offsets = np.concatenate([[0], np.cumsum(counts)])

    def match(self, images: Sequence[str]) -> np.ndarray:
        """See LabelSource in utils/labels/sources.py; a `file_name` may have more leading folders than the image."""
        return match_names(images, self.names)

    def label_name(self, number: int) -> str:
        """Name of the labels of an image, for messages."""
        return f"{self.path.name}: {excerpt(self.names[number], 200)}"

    def read(self, number: int, size: tuple[int, int]) -> LabelFile:
        """Return the labels of an image."""
        del size  # COCO's boxes are in pixels
        rows = range(self._offsets[number], self._offsets[number + 1])
        labels = LabelFile(size=self._sizes[number])
        for row in rows:
            x, y, width, height = self._boxes[row].tolist()
            labels.add((x, y, x + width, y + height), int(self._labels[row]), ignored=bool(self._crowd[row]))
        labels.unknown = [self._category(self._unknown[row]) for row in rows if row in self._unknown]
        return labels

    def _category(self, category: Any) -> str:
        return (
            f"'{excerpt(self._names[category])}'" if category in self._names else f"category {excerpt(str(category))}"
        )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        size = file_size(path)
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size:,} bytes is too large for COCO's json: is this the right file?")
        with path.open("rb") as file:
            content = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): repair or remove it") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): repair it") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of a million digits, nested without end
        raise DataError(f"{path}: not valid JSON ({excerpt(str(error))}): repair it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: a {type(content).__name__}, expected COCO's images, annotations and categories")
    return content


def _part(path: Path, content: Mapping[str, Any], key: str) -> list[dict]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: {key} is missing or no list, expected COCO's {', '.join(_PARTS)}")
    kinds = Counter(type(entry).__name__ for entry in entries)
    if kinds.keys() - {"dict"}:
        other = next(kind for kind in kinds if kind != "dict")
        raise DataError(f"{path}: {key} has a {other} among its entries, expected objects in braces: repair it")
    return entries


def _key(value: Any) -> int | float | str | None:
    """Return the value if it can be an id; some tools write text."""
    return value if isinstance(value, (int, float, str)) else None


def _file_name(entry: Mapping[str, Any]) -> str | None:
    name = entry.get("file_name")
    if not isinstance(name, str):
        return None
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(parts).lstrip("/") or None


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width; None if they are missing or not valid numbers of pixels."""
    height, width = entry.get("height"), entry.get("width")
    if type(height) is type(width) is int and 0 < height < MAX_SIDE and 0 < width < MAX_SIDE:
        return height, width
    return None


def _box(entry: Mapping[str, Any]) -> list[float] | None:
    """x, y, width, height; None unless they are four numbers."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        return None
    return [float(value) if abs(value) < 1e15 else float("nan") for value in box]
