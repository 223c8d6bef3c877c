"""What --input means."""

import difflib
import glob
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError
from utils.images import list_images


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
        images = sorted(Path(match) for match in glob.glob(wish, recursive=True) if Path(match).is_file())
        if not images:
            raise UserError(f"--input {wish}: no file matches this pattern")
        return images
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {path.parent / near[0]}?" if near else ""
    raise UserError(f"--input {wish}: no such file or folder{hint}")


def output_names(paths: list[Path]) -> Iterator[str]:
    """A file name for each path: its own, or with a number where an earlier one has it, in whatever case."""
    taken: set[str] = set()
    for path in paths:
        name, number = path.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}_{number}{path.suffix}"
        taken.add(name.casefold())
        yield name
