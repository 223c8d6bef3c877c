"""Compact lists of the files below a folder, and matching of one list with another.

A name is a path relative to the folder with "/" as separator on every system.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, takewhile
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

_MAX_LENGTH, _MAX_FOLDERS = 4096, 40  # of a name that is matched by its last parts: Linux's PATH_MAX, deep folders


class NameList(Sequence[str]):
    """Immutable list of str that takes 8 bytes more than the text of each; a str takes 50 more, a Path 200."""

    def __init__(self, names: Iterable[str]) -> None:
        # Surrogates stand for bytes that are not UTF-8.
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._letters = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
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


class FileList(Sequence[Path]):
    """Files below one folder; Path objects are made on access."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self.names = names if isinstance(names, NameList) else NameList(names)
        self._prefix = os.fspath(folder / "_")[:-1]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, i: int) -> Path: ...

    @overload
    def __getitem__(self, i: slice) -> list[Path]: ...

    def __getitem__(self, i: int | slice) -> Path | list[Path]:
        names = self.names[i]
        return self.folder / names if isinstance(names, str) else [self.folder / name for name in names]

    def text(self, i: int) -> str:
        """Return the path of file i as str, in a third of the time that a Path takes."""
        return self._prefix + self.names[i].replace("/", os.sep)


def find_files(folder: Path, wanted: Callable[[str], bool]) -> list[str]:
    """List the files in `folder` and below whose file name `wanted` accepts, sorted by name.

    Links are followed, each folder is entered once, and hidden files and folders (`.git`, `._a.jpg`) are skipped.

    Raises:
        OSError: the folder cannot be listed.
    """
    names, seen, folders = [], set(), [(os.fspath(folder), "")]
    while folders:
        path, prefix = folders.pop()
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        if status.st_ino:  # Windows may have none
            seen.add(identity)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                elif wanted(entry.name) and entry.is_file():
                    names.append(prefix + entry.name)
    return sorted(names)


def stem(name: str) -> str:
    """Strip the suffix of a name: "a/b.v1.jpg" -> "a/b.v1"."""
    head, dot, tail = name.rpartition(".")
    return head if dot and head and not head.endswith("/") and "/" not in tail else name


def match_names(names: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Find the name in `others` that belongs to each of `names`.

    Equal names match. Of the remaining ones, two match if their file names are equal apart from case and Unicode
    normalization (which a copy to another system may change), their folders agree as far as both have them, and no
    other pair does so: a/1 matches train/a/1, but not b/1. If nothing matches, the common folder of all names and that
    of all others are stripped: images/1 matches labels/1.

    Returns:
        (len(names),) int64 position in `others`, the first of repeated ones, or -1.
    """
    matches = _match(names, others)
    if (matches >= 0).any():
        return matches
    return _match(_below_common_folder(names), _below_common_folder(others))


def _below_common_folder(names: Sequence[str]) -> list[str]:
    """Strip the folders that all names have in common."""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, folders))
    return [name.split("/", depth)[-1] for name in names]


def _match(names: Sequence[str], others: Sequence[str]) -> np.ndarray:
    position: dict[str, int] = {}
    for i, other in enumerate(others):
        position.setdefault(other, i)
    matches = np.fromiter((position.get(name, -1) for name in names), np.int64, len(names))
    unmatched = [i for i in np.flatnonzero(matches < 0).tolist() if _is_short(names[i])]
    if not unmatched:
        return matches
    used = set(matches.tolist())
    free: dict[str, list[str]] = defaultdict(list)
    for other, i in position.items():
        if i not in used and _is_short(other):
            free[_folded(other)[-1]].append(other)
    seeking: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in unmatched:
        seeking[_folded(names[i])[-1]][names[i]].append(i)
    for key, rows in seeking.items():
        for name, other in _pairs(list(rows), free.get(key, [])):
            matches[rows[name]] = position[other]
    return matches


def _pairs(names: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Pair names and others that have the same file name; see match_names."""
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
    """Return True if the name can be a path: matching one with thousands of folders takes quadratic time."""
    return len(name) <= _MAX_LENGTH and name.count("/") < _MAX_FOLDERS


def _folded(name: str) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in PurePosixPath(name).parts or (name,))
