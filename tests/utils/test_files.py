import errno
import os
from pathlib import Path

import pytest

from tests.conftest import full_disk
from utils.files import read_file, remove_leftovers, write_atomically, write_bytes, write_text


def test_a_file_is_read_to_its_end_however_many_parts_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = tmp_path / "ü [1].jpg", bytes(range(256)) * 9
    path.write_bytes(content)
    assert read_file(path) == read_file(str(path)) == content
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, 100)))  # as some file systems do
    assert read_file(path) == content
    path.write_bytes(b"")
    assert read_file(path) == b""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_no_folder_pipe_or_device_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing")


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


def test_bytes_that_a_full_disk_refuses_leave_no_half_of_a_file(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(OSError, match=r"a\.jpg") as error:
        write_bytes(tmp_path / "a.jpg", bytes(2000))
    assert error.value.filename == str(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
    write_bytes(tmp_path / "a.jpg", bytes(2000))
    assert (tmp_path / "a.jpg").stat().st_size == 2000


def test_what_cannot_be_opened_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(OSError, match=r"directory: .*a\.jpg|denied: .*a\.jpg"):
        write_bytes(tmp_path / "a.jpg", b"1")
    assert (tmp_path / "a.jpg").is_dir()


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.pth.77.tmp", "a.tmp", ".hidden", ".mine.tmp"):
        (tmp_path / name).touch()
    (tmp_path / ".folder.77.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tmp", ".hidden", ".mine.tmp", ".folder.77.tmp"}


def test_a_file_name_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", os.fsdecode(b"\xff.jpg"))
    assert (tmp_path / "a.txt").read_bytes() == b"\xff.jpg"
