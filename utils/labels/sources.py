"""Sources of the labels of a split: a folder with one file per image, or one COCO json."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.errors import DataError
from utils.images.file_lists import FileList, find_files, match_names, stem
from utils.labels.coco_json import CocoLabels
from utils.labels.data_config import Split
from utils.labels.readers import READERS, LabelFile, Reader

COCO = "coco"
_SUFFIXES = {**{name: reader.suffix for name, reader in READERS.items()}, COCO: CocoLabels.suffix}


class LabelSource(Protocol):
    """The labels of one split."""

    names: Sequence[str]  # of the label files, or of the images that the one file has
    notes: list[str]  # skipped entries that belong to no image
    duplicates: list[str]  # label files that are not read, as another one has the same name

    def match(self, images: Sequence[str]) -> np.ndarray:
        """(N,) int64 position in `names` of the labels of every image, -1 for none."""

    def label_name(self, number: int) -> str:
        """Name of the labels at a position in `names`, for messages."""

    def read(self, number: int, size: tuple[int, int]) -> LabelFile:
        """Read the labels at a position; `size` is height and width of their image. DataError if they are damaged."""


class FolderLabels:
    """A folder with one label file per image, matched by file name without suffix."""

    def __init__(self, folder: Path, reader: Reader, label_of: Mapping[str, int]) -> None:
        self.notes: list[str] = []
        self._reader, self._label_of = reader, label_of
        names = find_files(folder, lambda name: name.lower().endswith(reader.suffix))
        first = {stem(name): name for name in reversed(names)}
        self.duplicates = [name for name in names if first[stem(name)] != name]
        self._files = FileList(folder, [name for name in names if first[stem(name)] == name])
        self.names = self._files.names

    def match(self, images: Sequence[str]) -> np.ndarray:
        """See LabelSource."""
        return match_names([stem(name) for name in images], [stem(name) for name in self.names])

    def label_name(self, number: int) -> str:
        """See LabelSource."""
        return self.names[number]

    def read(self, number: int, size: tuple[int, int]) -> LabelFile:
        """See LabelSource."""
        return self._reader.read(self._files[number], size, self._label_of)


def open_labels(
    split: Split, label_type: str, label_of: Mapping[str, int], images: Sequence[str]
) -> tuple[LabelSource, np.ndarray]:
    """Open the labels of a split and match them with its images, see LabelSource.match.

    Args:
        label_of: class name -> index into CLASSES.
        images: names below the split's image folder.

    Raises:
        DataError: no image has labels of this type, or the COCO json is damaged.
    """
    suffix = _SUFFIXES[label_type]
    if label_type == COCO:
        source: LabelSource = CocoLabels(_coco_file(split.labels), label_of)
    elif split.labels.is_file():
        other = _type_of([split.labels.name])
        hint = f"add --label-type {other}" if other else "name the folder"
        raise DataError(f"{split.labels}: a file, expected a folder of {suffix} files: {hint}")
    else:
        source = FolderLabels(split.labels, READERS[label_type], label_of)
    matched = source.match(images)
    if (matched >= 0).any():
        return source, matched
    if label_type == COCO:
        raise DataError(f"{split.labels}: names none of the images in {split.images}: is it the file of another split?")
    stems = {stem(name) for name in images}
    names = find_files(split.labels, lambda name: _type_of([name]) is not None)
    names = [name for name in names if stem(name) in stems or name.lower().endswith(CocoLabels.suffix)]
    other = _type_of(names)
    if other:
        count = sum(name.lower().endswith(_SUFFIXES[other]) for name in names)
        raise DataError(
            f"{split.labels}: no {suffix} file for any image, but {count} {_SUFFIXES[other]} files: "
            f"add --label-type {other}"
        )
    raise DataError(
        f"{split.labels}: no {suffix} file has the name of an image: labels are matched by file name, image_1.jpg to "
        f"image_1{suffix}"
    )


def _coco_file(labels: Path) -> Path:
    """Return the json itself, or the only one in a folder."""
    if labels.is_file():
        return labels
    names = [path.name for path in sorted(labels.iterdir())]
    files = [name for name in names if name.lower().endswith(CocoLabels.suffix)]
    if len(files) == 1:
        return labels / files[0]
    if files:
        raise DataError(f"{labels}: {len(files)} .json files, {files[0]} the first: name one in the YAML")
    other = _type_of(names)
    hint = f"but {_SUFFIXES[other]} files: add --label-type {other}" if other else "expected COCO's"
    raise DataError(f"{labels}: no .json file, {hint}")


def _type_of(names: Sequence[str]) -> str | None:
    """Return the first label type with files among these names."""
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    return next((name for name, suffix in _SUFFIXES.items() if suffix in suffixes), None)
