"""Resolution of --input to image files."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import file_size
from utils.images.image_files import IMAGE_SUFFIXES, can_write, is_image_name, list_images
from utils.text import did_you_mean_file

_LIST_SUFFIX = ".txt"
_VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
_MAX_LIST_BYTES = 256 << 20  # several million names


@dataclass(frozen=True)
class ImageFiles:
    """Input images and the file names of their results."""

    paths: Sequence[Path]
    names: Sequence[str]  # relative to the results folder, unique ignoring case

    def __len__(self) -> int:
        return len(self.paths)


def find_images(pattern: str, *, recursive: bool = False) -> ImageFiles:
    """Find the images of a file name, a folder, a glob pattern or a list (.txt, one path a line, relative to the list).

    An existing file or folder takes precedence over a pattern. The files of a list are not checked for existence.

    Args:
        recursive: include subfolders, except hidden ones; names keep the folder structure.

    Raises:
        UserError: no image is found.
    """
    path = Path(pattern)
    if path.is_file() and path.suffix.lower() in _VIDEO_SUFFIXES:
        raise UserError(f"--input {pattern}: is a video: use inference_video.py")
    if path.is_file():
        paths = _listed(path) if path.suffix.lower() == _LIST_SUFFIX else [path]
        return ImageFiles(paths, tuple(output_names([p.name for p in paths])))
    if path.is_dir():
        paths = sorted(_tree(path)) if recursive else list_images(path)
        if not paths:
            deeper = "" if recursive else "; --recursive includes its subfolders"
            raise UserError(f"--input {pattern}: no images in this folder{deeper}")
        return ImageFiles(paths, tuple(output_names([p.relative_to(path).as_posix() for p in paths])))
    if glob.has_magic(pattern):
        paths = _matching(pattern)
        return ImageFiles(paths, tuple(output_names([p.name for p in paths])))
    if "://" in pattern:
        raise UserError(f"--input {pattern}: cannot read images from a URL: download them first")
    raise UserError(f"--input {pattern}: no such file or folder{did_you_mean_file(path)}")


def _listed(path: Path) -> list[Path]:
    try:
        if file_size(path) > _MAX_LIST_BYTES:
            raise UserError(f"--input {path}: a list of images has at most {_MAX_LIST_BYTES >> 20} MiB")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"--input {path}: cannot be read ({error.strerror})") from None
    paths = [path.parent / os.fsdecode(name) for line in lines if (name := line.strip()) and b"\0" not in name]
    if not paths:
        raise UserError(f"--input {path}: lists no images: expected one path a line, relative to the list")
    return paths


def _tree(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if is_image_name(name) and os.path.isfile(Path(root, name)))


def _matching(pattern: str) -> list[Path]:
    files = [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]
    images = sorted(filter(is_image_name, files))
    if images:
        return images
    if files:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"--input {pattern}: none of the {len(files)} files here ends in {endings}")
    raise UserError(f"--input {pattern}: no file matches this pattern")


def output_names(names: Sequence[str]) -> Iterator[str]:
    """Make file names unique, ignoring case, by appending numbers.

    A name whose image format cannot be written gets the suffix .jpg.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # lower-case name -> last number used
    for original in names:
        is_writable = can_write(os.path.splitext(original)[1])
        stem, suffix = os.path.splitext(original if is_writable else f"{original}.jpg")
        name = stem + suffix
        key, number = name.casefold(), numbers.get(name.casefold(), 1)
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        numbers[key] = number
        taken.add(name.casefold())
        yield name
