"""What --input means."""

import difflib
import glob
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError
from utils.images import IMAGE_SUFFIXES, can_write, is_image_name, list_images


def find_images(wish: str) -> list[Path]:
    """The images of a file name, a folder or a glob pattern; what exists under the very name wins over a pattern.

    Raises:
        UserError: there are none.
    """
    path = Path(wish)
    if path.is_file():
        return [path]
    if path.is_dir():
        images = list_images(path)
        if not images:
            raise UserError(f"--input {wish}: no images in this folder")
        return images
    if glob.has_magic(wish):
        files = [Path(match) for match in glob.glob(wish, recursive=True) if Path(match).is_file()]
        images = sorted(filter(is_image_name, files))
        if not images:
            if files:
                endings = ", ".join(sorted(IMAGE_SUFFIXES))
                raise UserError(f"--input {wish}: none of the {len(files)} files here ends in {endings}")
            raise UserError(f"--input {wish}: no file matches this pattern")
        return images
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {path.parent / near[0]}?" if near else ""
    raise UserError(f"--input {wish}: no such file or folder{hint}")


def output_names(paths: list[Path]) -> Iterator[str]:
    """A file name for each path: its own, or with a number where an earlier one has it, in whatever case.

    A name whose kind of image cannot be written gets .jpg at its end.
    """
    taken: set[str] = set()
    for path in paths:
        own = path if can_write(path.suffix) else path.with_name(f"{path.name}.jpg")
        name, number = own.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{own.stem}_{number}{own.suffix}"
        taken.add(name.casefold())
        yield name
