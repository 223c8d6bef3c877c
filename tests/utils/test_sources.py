import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.sources import find_images, output_names


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.JPG", "a.v2.jpg", "[1].png", "notes.txt", "deep/c.jpg"):
        (folder / name).touch()
    return folder


def test_file_folder_and_pattern(pictures: Path) -> None:
    assert find_images(str(pictures / "b.JPG")) == [pictures / "b.JPG"]
    assert [p.name for p in find_images(str(pictures))] == ["[1].png", "a.v2.jpg", "b.JPG"]
    assert [p.name for p in find_images(str(pictures / "*.jpg"))] == ["a.v2.jpg"]
    assert [p.name for p in find_images(str(pictures / "**/*.jpg"))] == ["a.v2.jpg", "c.jpg"]


def test_a_name_with_brackets_is_a_name_first(pictures: Path) -> None:
    """Fault of the predecessor: paths with [ ] were silently ignored."""
    assert find_images(str(pictures / "[1].png")) == [pictures / "[1].png"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("a.v3.jpg", r"no such file or folder; did you mean .*a\.v2\.jpg\?"),
        ("nowhere/x.jpg", "no such file or folder$"),
        ("*.gif", "no file matches this pattern"),
    ],
)
def test_nothing_there(pictures: Path, wish: str, message: str) -> None:
    """Fault of the predecessor: a missing input raised AttributeError."""
    with pytest.raises(UserError, match=message):
        find_images(str(pictures / wish))


@pytest.mark.parametrize("pattern", ["*", "mix/*", "**/*"])
def test_a_pattern_that_matches_label_files_too_finds_the_images(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "mix" if "mix" in pattern else tmp_path
    folder.mkdir(exist_ok=True)
    for name in ("a.jpg", "a.xml", "b.PNG", "b.txt", "c"):
        (folder / name).touch()
    (folder / "d.jpg").mkdir()
    assert [p.name for p in find_images(str(tmp_path / pattern))] == ["a.jpg", "b.PNG"]


def test_a_pattern_that_matches_no_image(pictures: Path) -> None:
    with pytest.raises(UserError, match=r"none of the 1 files here ends in \.bmp, \.jpeg, \.jpg"):
        find_images(str(pictures / "*.txt"))


def test_a_single_file_is_taken_whatever_its_suffix(pictures: Path) -> None:
    assert find_images(str(pictures / "notes.txt")) == [pictures / "notes.txt"]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in this folder"):
        find_images(str(tmp_path))


def test_output_names_never_collide() -> None:
    """Fault of the predecessor: names were cut at the first dot, so that results overwrote each other."""
    paths = [Path(p) for p in ("a.v1.jpg", "a.v2.jpg", "x/a.v1.jpg", "y/A.V1.JPG", "a.v1.png", "a.v1_2.jpg")]
    names = list(output_names(paths))
    assert names == ["a.v1.jpg", "a.v2.jpg", "a.v1_2.jpg", "A.V1_3.JPG", "a.v1.png", "a.v1_2_2.jpg"]
    assert len({n.casefold() for n in names}) == len(names)


def test_output_names_are_of_images_that_can_be_written() -> None:
    paths = [Path(p) for p in ("photo", "x/photo", "a.jfif", "b.v1", "photo.jpg", ".jpg", "c.WEBP", "d.pgm")]
    names = ["photo.jpg", "photo_2.jpg", "a.jfif.jpg", "b.v1.jpg", "photo_3.jpg", ".jpg.jpg", "c.WEBP", "d.pgm.jpg"]
    assert list(output_names(paths)) == names


def test_output_names_keep_bytes_that_are_not_utf8() -> None:
    paths = [Path(os.fsdecode(name)) for name in (b"\xff.jpg", b"a.\xff")]
    assert [os.fsencode(name) for name in output_names(paths)] == [b"\xff.jpg", b"a.\xff.jpg"]
