import errno
import os
from pathlib import Path

import pytest

from utils.files import remove_leftovers, write_atomically, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old ü")

    def fail(file) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(OSError, match=r"no space left on device: .*a\.txt"):
        write_atomically(path, fail)
    assert path.read_text(encoding="utf-8") == "old ü"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.pth.77.tmp", "a.tmp", ".hidden", ".mine.tmp"):
        (tmp_path / name).touch()
    (tmp_path / ".folder.77.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tmp", ".hidden", ".mine.tmp", ".folder.77.tmp"}


def test_a_file_name_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", os.fsdecode(b"\xff.jpg"))
    assert (tmp_path / "a.txt").read_bytes() == b"\xff.jpg"
