"""Files that are whole or not there."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_KEPT = 50  # characters of a name in that of its temporary file: a name has at most 255 bytes
_PART = 1 << 16  # bytes of a file, asked for at once
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def file_size(path: str | Path) -> int:
    """Bytes of a file that ends.

    Raises:
        OSError: there is none, or it is a folder, a pipe, which waits for ever, or a device, which has no end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return status.st_size


def read_file(path: str | Path) -> bytes:
    """The content of a file that ends, in few calls, for one is read for every sample.

    Raises:
        OSError: as file_size.
    """
    size = file_size(path)
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(file, size + 1)
        if len(data) == size > 0:
            return data
        return data + b"".join(iter(lambda: os.read(file, _PART), b""))  # some file systems say 0, or give it in parts
    finally:
        os.close(file)


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Let an OSError say that it is about `path`: a write that a full disk refuses does not say which file it was."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, not forced to the disk, as of thousands each would have to wait for it.

    Raises:
        OSError: it cannot be written; no part of it is left.
    """
    with add_path_to_errors(path):
        file = path.open("wb")
        try:
            with file:
                file.write(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file next to `path`, flush it to the disk, and rename it: no reader ever meets half of it.

    Raises:
        OSError: what is at `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name[:_KEPT]}.{os.getpid()}.tmp")
    try:
        with add_path_to_errors(path):
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed in the middle of write_atomically left in the folder."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; file names that are not UTF-8 keep their bytes."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
