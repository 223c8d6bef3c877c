"""What --input means for images."""

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
_MAX_LIST_BYTES = 256 << 20  # some million names


@dataclass(frozen=True)
class ImageFiles:
    """Images to look at, and what the results of each are called."""

    paths: Sequence[Path]
    names: Sequence[str]  # of pictures, unique in whatever case, relative to the folder of results

    def __len__(self) -> int:
        return len(self.paths)


def find_images(wish: str, *, recursive: bool = False) -> ImageFiles:
    """The images of a file name, a folder, a glob pattern or a list (.txt, one path a line, relative to the list).

    What exists under the very name wins over a pattern. What a list names need not exist: reading it will tell.

    Args:
        recursive: take the folders in a folder too, but for hidden ones; names keep the tree.

    Raises:
        UserError: there are none.
    """
    path = Path(wish)
    if path.is_file() and path.suffix.lower() in _VIDEO_SUFFIXES:
        raise UserError(f"--input {wish}: this is a video: use inference_video.py")
    if path.is_file():
        paths = _listed(path) if path.suffix.lower() == _LIST_SUFFIX else [path]
        return ImageFiles(paths, tuple(output_names([p.name for p in paths])))
    if path.is_dir():
        paths = sorted(_tree(path)) if recursive else list_images(path)
        if not paths:
            deeper = "" if recursive else "; --recursive looks into its folders too"
            raise UserError(f"--input {wish}: no images in this folder{deeper}")
        return ImageFiles(paths, tuple(output_names([p.relative_to(path).as_posix() for p in paths])))
    if glob.has_magic(wish):
        paths = _matching(wish)
        return ImageFiles(paths, tuple(output_names([p.name for p in paths])))
    if "://" in wish:
        raise UserError(f"--input {wish}: images are read from disks, not from addresses: fetch it first")
    raise UserError(f"--input {wish}: no such file or folder{did_you_mean_file(path)}")


def _listed(path: Path) -> list[Path]:
    try:
        if file_size(path) > _MAX_LIST_BYTES:
            raise UserError(f"--input {path}: a list of images has at most {_MAX_LIST_BYTES >> 20} MiB")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"--input {path}: cannot be read ({error.strerror})") from None
    paths = [path.parent / os.fsdecode(name) for line in lines if (name := line.strip()) and b"\0" not in name]
    if not paths:
        raise UserError(f"--input {path}: names no images: expected one path a line, relative to the list")
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
    """Each name, or with a number where an earlier one has it, in whatever case.

    A name whose kind of image cannot be written gets .jpg at its end.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # of a wish in small letters: its last
    for wish in names:
        stem, suffix = os.path.splitext(wish if can_write(os.path.splitext(wish)[1]) else f"{wish}.jpg")
        name = stem + suffix
        wanted, number = name.casefold(), numbers.get(name.casefold(), 1)
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        numbers[wanted] = number
        taken.add(name.casefold())
        yield name
