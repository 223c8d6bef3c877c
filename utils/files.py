"""Read and write files safely: regular files only, and atomic writes."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_MAX_STEM = 50  # characters of the file name in the name of its temporary file: a name has at most 255 bytes
_CHUNK = 1 << 16  # bytes per read
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def file_size(path: str | Path) -> int:
    """Size of a regular file in bytes.

    Raises:
        OSError: it does not exist, or is a folder, a pipe (reading might block forever) or a device (it has no end).
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_file(path: str | Path) -> bytes:
    """Read a regular file with few system calls, as every sample reads one.

    Raises:
        OSError: see file_size.
    """
    size = file_size(path)
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(file, size + 1)
        if len(data) == size > 0:
            return data
        return data + b"".join(
            iter(lambda: os.read(file, _CHUNK), b"")
        )  # some file systems report size 0, or read in parts
    finally:
        os.close(file)


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Add `path` to an OSError: a failed write to a full disk does not name its file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file without flushing it to the disk, which would be slow for thousands of files.

    Raises:
        OSError: it cannot be written; no partial file is left.
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
    """Write a temporary file beside `path`, flush it to the disk and rename it, so readers never see a partial file.

    Raises:
        OSError: it cannot be written; an existing file at `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name[:_MAX_STEM]}.{os.getpid()}.tmp")
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
    """Delete temporary files that processes killed during write_atomically left in the folder."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; bytes of file names that are not UTF-8 are preserved."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
