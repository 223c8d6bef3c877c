import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.images.file_lists import FileList, NameList, find_files, match_names, stem


@given(st.lists(st.text()))
def test_names_are_kept(names: list[str]) -> None:
    kept = NameList(names)
    assert list(kept) == names
    assert kept[1:] == names[1:]
    assert len(kept) == len(names)
    with pytest.raises(IndexError):
        kept[len(names)]


def test_bytes_that_are_not_utf8_are_kept() -> None:
    assert os.fsencode(FileList(Path("x"), [os.fsdecode(b"\xff.jpg")])[-1]) == b"x/\xff.jpg"


@given(st.lists(st.from_regex(r"[abü]+(/[abü]+)*\.jpg", fullmatch=True), min_size=1))
def test_the_text_of_a_path_is_that_of_its_path(names: list[str]) -> None:
    for folder in (Path("x/y"), Path("/x"), Path("."), Path("/")):
        files = FileList(folder, names)
        assert [files.text(i) for i in range(len(files))] == [str(path) for path in files]


def test_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a/a/d.txt", ".git/e.txt", "a/._c.txt", "f.jpg", "g.txt/h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/round").symlink_to(tmp_path)
    (tmp_path / "z.txt").symlink_to(tmp_path / "nothing")
    assert find_files(tmp_path, lambda name: name.endswith(".txt")) == ["a/a/d.txt", "a/c.txt", "b.txt", "g.txt/h.txt"]
    with pytest.raises(OSError, match="nothing"):
        find_files(tmp_path / "nothing", lambda _: True)


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.v1.jpg", "a/b.v1"), ("a.b/c", "a.b/c"), (".x", ".x"), ("a/.x", "a/.x"), ("a.", "a")]
)
def test_stem(name: str, expected: str) -> None:
    assert stem(name) == expected


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["a", "b"], ["b", "a", "b"], [1, 0]),
        (["x/a", "x/b"], ["b", "a"], [1, 0]),  # flat on one side
        (["a", "b"], ["x/a", "y/b"], [0, 1]),
        (["images/1", "images/2"], ["labels/2", "labels/1"], [1, 0]),
        (["x/1", "y/1"], ["1"], [-1, -1]),  # whose?
        (["1"], ["x/1", "y/1"], [-1]),
        (["x/1", "y/1"], ["t/y/1", "t/x/1"], [1, 0]),  # deeper on one side
        (["t/x/1", "t/y/1"], ["y/1", "x/1", "z/1"], [1, 0]),
        (["x/1", "y/1"], ["y/1"], [-1, 0]),  # x/1 has none; that of y is not its
        (["a", "a"], ["s/a"], [0, 0]),  # a.jpg and a.png
        (["Straße_É"], [unicodedata.normalize("NFD", "straße_é")], [0]),
        (["A", "a"], ["a"], [-1, 0]),
        (["x/1", "y/1"], ["y/1", "z/1"], [-1, 0]),  # what is left on both sides lies in other folders
        (["A/4", "A/5", "B/4"], ["A/4", "B/4", "B/5"], [0, -1, 1]),
        (["A/4", "A/5"], ["A/4", "B/4", "B/5"], [0, -1]),
        ([], ["a"], []),
        (["a"], [], [-1]),
    ],
)
def test_what_belongs_together(names: list[str], others: list[str], expected: list[int]) -> None:
    assert match_names(names, others).tolist() == expected


@given(st.permutations([f"{folder}/{name}" for folder in "ab" for name in "xyz"]), st.integers(0, 6))
def test_a_match_is_the_same_path_where_there_is_one(names: list[str], count: int) -> None:
    others = names[:count]
    found = match_names(sorted(names), others)
    for name, other in zip(sorted(names), found.tolist(), strict=True):
        assert (others[other] if other >= 0 else None) == (name if name in others else None)


def test_a_path_of_thousands_of_folders_is_matched_with_nothing_but_itself() -> None:
    """A name with 20,000 folders took 1.6 GB to match."""
    deep = "a/" * 20_000 + "b"
    assert match_names([deep, "x/b"], ["b", deep]).tolist() == [1, 0]
    assert match_names(["b"], [deep, "c/d"]).tolist() == [-1]
    assert match_names([deep, "c/d"], ["b"]).tolist() == [-1, -1]


def test_many_folders_with_the_same_names() -> None:
    """Many folders with the same file names, as video frames have, take linear time."""
    names = [f"{video}/{frame}" for video in range(500) for frame in range(40)]
    found = match_names([f"data/{name}" for name in names], names)
    assert found.tolist() == list(range(len(names)))
