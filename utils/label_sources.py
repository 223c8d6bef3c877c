"""Where the labels of a split are: one file an image in a folder, or one COCO json for all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from utils.coco_json import CocoLabels
from utils.data_config import Split
from utils.errors import DataError
from utils.label_readers import READERS, LabelFile, Reader

COCO = "coco"
_SUFFIXES = {**{name: reader.suffix for name, reader in READERS.items()}, COCO: CocoLabels.suffix}


class LabelSource(Protocol):
    """The labels of one split."""

    notes: list[str]  # what was left out that belongs to no image

    def name(self, image: Path) -> str | None:
        """What messages call the labels of an image; None if it has none."""

    def read(self, image: Path, size: tuple[int, int]) -> LabelFile:
        """The labels of an image that `name` knows; `size` is its height and width. DataError if they are damaged."""

    def without_image(self, images: list[Path]) -> list[str]:
        """Labels, by their names, that belong to none of `images`."""


class FolderLabels:
    """One file an image, matched by its name without suffix."""

    def __init__(self, folder: Path, reader: Reader, label_of: Mapping[str, int]) -> None:
        self.notes: list[str] = []
        self._reader, self._label_of = reader, label_of
        self._paths = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == reader.suffix}

    def name(self, image: Path) -> str | None:
        """See LabelSource."""
        path = self._paths.get(image.stem)
        return path.name if path else None

    def read(self, image: Path, size: tuple[int, int]) -> LabelFile:
        """See LabelSource."""
        return self._reader.read(self._paths[image.stem], size, self._label_of)

    def without_image(self, images: list[Path]) -> list[str]:
        """See LabelSource."""
        return sorted(self._paths[stem].name for stem in self._paths.keys() - {image.stem for image in images})


def open_labels(split: Split, label_type: str, label_of: Mapping[str, int], images: Sequence[Path]) -> LabelSource:
    """The labels of a split.

    Args:
        label_of: class name -> index into CLASSES.

    Raises:
        DataError: there are none of this type for any of the images, or COCO's json is damaged.
    """
    suffix = _SUFFIXES[label_type]
    if label_type == COCO:
        source: LabelSource = CocoLabels(_coco_file(split.labels), label_of)
    elif split.labels.is_file():
        other = _type_of([split.labels])
        hint = f"add --label-type {other}" if other else "name the folder"
        raise DataError(f"{split.labels}: a file, expected a folder of {suffix} files: {hint}")
    else:
        source = FolderLabels(split.labels, READERS[label_type], label_of)
    if any(source.name(image) for image in images):
        return source
    if label_type == COCO:
        raise DataError(f"{split.labels}: names none of the images in {split.images}: is it the file of another split?")
    stems = {image.stem for image in images}
    there = [path for path in split.labels.iterdir() if path.stem in stems or path.suffix.lower() == CocoLabels.suffix]
    other = _type_of(there)
    if other:
        count = sum(path.suffix.lower() == _SUFFIXES[other] for path in there)
        raise DataError(
            f"{split.labels}: no {suffix} file for any image, but {count} {_SUFFIXES[other]} files: "
            f"add --label-type {other}"
        )
    raise DataError(
        f"{split.labels}: no {suffix} file has the name of an image: labels are matched by file name, image_1.jpg to "
        f"image_1{suffix}"
    )


def _coco_file(labels: Path) -> Path:
    """The json itself, or the only one in a folder."""
    if labels.is_file():
        return labels
    files = sorted(path for path in labels.iterdir() if path.suffix.lower() == CocoLabels.suffix)
    if len(files) == 1:
        return files[0]
    if files:
        raise DataError(f"{labels}: {len(files)} .json files, {files[0].name} the first: name one in the YAML")
    other = _type_of(list(labels.iterdir()))
    hint = f"but {_SUFFIXES[other]} files: add --label-type {other}" if other else "expected COCO's"
    raise DataError(f"{labels}: no .json file, {hint}")


def _type_of(paths: Sequence[Path]) -> str | None:
    """The first label type that has files among these."""
    suffixes = {path.suffix.lower() for path in paths}
    return next((name for name, suffix in _SUFFIXES.items() if suffix in suffixes), None)
