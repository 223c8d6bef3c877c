"""The files of a folder and the folders in it, in little memory, and which of two such lists belong together.

A name is a path below the folder with "/" between its parts, whatever the system.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, takewhile
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

_MOST_LETTERS, _MOST_PARTS = 4096, 40  # of a path that another one is matched with: Linux's PATH_MAX, and many folders


class Names(Sequence[str]):
    """Text in its own bytes and 8 more each; a str takes 50 more, a Path 200."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]  # Python has bytes that are not UTF-8 so
        self._letters = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return len(self._letters) + self._ends.nbytes

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> list[str]: ...

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        start, end = self._ends[i : i + 2].tolist()
        return self._letters[start:end].decode("utf-8", "surrogatepass")


class Files(Sequence[Path]):
    """Files of one folder, whose Path objects are made when they are asked for."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self.names = names if isinstance(names, Names) else Names(names)
        self._prefix = os.fspath(folder / "_")[:-1]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, i: int) -> Path: ...

    @overload
    def __getitem__(self, i: slice) -> list[Path]: ...

    def __getitem__(self, i: int | slice) -> Path | list[Path]:
        found = self.names[i]
        return self.folder / found if isinstance(found, str) else [self.folder / name for name in found]

    def text(self, i: int) -> str:
        """The path of file i, in a third of the time that a Path takes."""
        return self._prefix + self.names[i].replace("/", os.sep)


def find_files(folder: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Sorted names of the files in `folder` and below that `wanted` takes by their last part.

    Links are followed, a folder is entered once, and hidden files and folders (`.git`, `._a.jpg`) are left alone.

    Raises:
        OSError: the folder cannot be listed.
    """
    found, seen, folders = [], set(), [(os.fspath(folder), "")]
    while folders:
        path, prefix = folders.pop()
        status = os.stat(path)
        place = (status.st_dev, status.st_ino)
        if place in seen:
            continue
        if status.st_ino:  # Windows may have none
            seen.add(place)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                elif wanted(entry.name) and entry.is_file():
                    found.append(prefix + entry.name)
    return sorted(found)


def stem(name: str) -> str:
    """The name without its suffix: "a/b.v1.jpg" -> "a/b.v1"."""
    head, dot, tail = name.rpartition(".")
    return head if dot and head and not head.endswith("/") and "/" not in tail else name


def match(names: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Which of `others` belongs to each of `names`.

    The same path belongs to it. Of what is left on both sides, the last parts must be the same but for case and Unicode
    form (a disk of another system may have changed them), and be the only two of that kind whose folders agree as far
    as both have them: a/1 and train/a/1, not b/1. Where nothing matches so, the folder that all names are in and that
    of all the others are left out: images/1 and labels/1.

    Returns:
        (len(names),) int64, position in `others`, the first where a name is there twice, or -1.
    """
    found = _match(names, others)
    if (found >= 0).any():
        return found
    return _match(_below_common_folder(names), _below_common_folder(others))


def _below_common_folder(names: Sequence[str]) -> list[str]:
    """The names without the folders that all of them begin with."""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, folders))
    return [name.split("/", depth)[-1] for name in names]


def _match(names: Sequence[str], others: Sequence[str]) -> np.ndarray:
    position: dict[str, int] = {}
    for i, other in enumerate(others):
        position.setdefault(other, i)
    found = np.fromiter((position.get(name, -1) for name in names), np.int64, len(names))
    lonely = [i for i in np.flatnonzero(found < 0).tolist() if _is_short(names[i])]
    if not lonely:
        return found
    used = set(found.tolist())
    free: dict[str, list[str]] = defaultdict(list)
    for other, i in position.items():
        if i not in used and _is_short(other):
            free[_folded(other)[-1]].append(other)
    seeking: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in lonely:
        seeking[_folded(names[i])[-1]][names[i]].append(i)
    for key, places in seeking.items():
        for name, other in _pairs(list(places), free.get(key, [])):
            found[places[name]] = position[other]
    return found


def _pairs(names: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Which two belong together, of names with the same last part."""
    whole: dict[tuple[str, ...], list[str]] = defaultdict(list)
    ending: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for other in others:
        parts = _folded(other)
        whole[parts].append(other)
        for start in range(len(parts)):
            ending[parts[start:]].append(other)
    agreeing = []
    for name in names:
        parts = _folded(name)
        shorter = chain.from_iterable(whole.get(parts[start:], ()) for start in range(1, len(parts)))
        agreeing.extend((name, other) for other in chain(ending.get(parts, ()), shorter))
    of_name, of_other = (Counter(column) for column in zip(*agreeing, strict=True)) if agreeing else ({}, {})
    return [(name, other) for name, other in agreeing if of_name[name] == of_other[other] == 1]


def _is_short(name: str) -> bool:
    """Whether it can be a path: looking for one of thousands of folders takes their number squared."""
    return len(name) <= _MOST_LETTERS and name.count("/") < _MOST_PARTS


def _folded(name: str) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in PurePosixPath(name).parts or (name,))
