import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.inference.sources import find_images, output_names


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.JPG", "a.v2.jpg", "[1].png", "notes.txt", "deep/c.jpg"):
        (folder / name).touch()
    return folder


def test_file_folder_and_pattern(pictures: Path) -> None:
    assert find_images(str(pictures / "b.JPG")).paths == [pictures / "b.JPG"]
    assert [p.name for p in find_images(str(pictures)).paths] == ["[1].png", "a.v2.jpg", "b.JPG"]
    assert [p.name for p in find_images(str(pictures / "*.jpg")).paths] == ["a.v2.jpg"]
    assert [p.name for p in find_images(str(pictures / "**/*.jpg")).paths] == ["a.v2.jpg", "c.jpg"]


def test_a_name_with_brackets_is_a_name_first(pictures: Path) -> None:
    """Fault of the predecessor: paths with [ ] were silently ignored."""
    assert find_images(str(pictures / "[1].png")).paths == [pictures / "[1].png"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("a.v3.jpg", r"no such file or folder; did you mean .*a\.v2\.jpg\?"),
        ("nowhere/x.jpg", "no such file or folder$"),
        ("*.gif", "no file matches this pattern"),
        ("clip.MP4", r"clip\.MP4: is a video: use inference_video\.py$"),
    ],
)
def test_nothing_there(pictures: Path, wish: str, message: str) -> None:
    """Fault of the predecessor: a missing input raised AttributeError."""
    (pictures / "clip.MP4").touch()
    with pytest.raises(UserError, match=message):
        find_images(str(pictures / wish))


@pytest.mark.parametrize("pattern", ["*", "mix/*", "**/*"])
def test_a_pattern_that_matches_label_files_too_finds_the_images(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "mix" if "mix" in pattern else tmp_path
    folder.mkdir(exist_ok=True)
    for name in ("a.jpg", "a.xml", "b.PNG", "b.txt", "c"):
        (folder / name).touch()
    (folder / "d.jpg").mkdir()
    assert [p.name for p in find_images(str(tmp_path / pattern)).paths] == ["a.jpg", "b.PNG"]


def test_a_pattern_that_matches_no_image(pictures: Path) -> None:
    with pytest.raises(UserError, match=r"none of the 1 files here ends in \.bmp, \.jpeg, \.jpg"):
        find_images(str(pictures / "*.txt"))


def test_a_single_file_is_taken_whatever_its_suffix(pictures: Path) -> None:
    (pictures / "photo").touch()
    assert find_images(str(pictures / "photo")).paths == [pictures / "photo"]


def test_a_folders_folders_on_request(pictures: Path) -> None:
    (pictures / ".thumbnails").mkdir()
    (pictures / ".thumbnails/b.jpg").touch()
    found = find_images(str(pictures), recursive=True)
    assert found.names == ("[1].png", "a.v2.jpg", "b.JPG", "deep/c.jpg")
    assert found.paths == [pictures / name for name in found.names]
    (pictures / "deep/c.jpg").rename(pictures / "deep/c.txt")
    with pytest.raises(UserError, match="no images in this folder; --recursive includes its subfolders"):
        find_images(str(pictures / "deep"))


def test_a_list_names_images_relative_to_itself(pictures: Path) -> None:
    """In whatever letters and line ends; what is not there is for the reader to tell."""
    (pictures / "list.TXT").write_bytes(b"b.JPG\r\n\n deep/c.jpg\n/else/where.png\n\xff.jpg")
    found = find_images(str(pictures / "list.TXT"))
    assert found.paths[:3] == [pictures / "b.JPG", pictures / "deep/c.jpg", Path("/else/where.png")]
    assert os.fsencode(found.names[3]) == b"\xff.jpg"
    (pictures / "empty.txt").touch()
    with pytest.raises(UserError, match="lists no images: expected one path a line"):
        find_images(str(pictures / "empty.txt"))


def test_addresses_are_refused() -> None:
    with pytest.raises(UserError, match="cannot read images from a URL: download them first"):
        find_images("https://example.org/a.jpg")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in this folder"):
        find_images(str(tmp_path))


def test_output_names_of_a_name_that_comes_again_and_again() -> None:
    """In a time that grew with the square of their number: a minute for 10,000."""
    names = list(output_names(["a.jpg"] * 30_000 + ["a_7.jpg"]))
    assert names[:3] == ["a.jpg", "a_2.jpg", "a_3.jpg"]
    assert names[-2:] == ["a_30000.jpg", "a_7_2.jpg"]


def test_output_names_never_collide() -> None:
    """Fault of the predecessor: names were cut at the first dot, so that results overwrote each other."""
    own = ("a.v1.jpg", "a.v2.jpg", "a.v1.jpg", "A.V1.JPG", "a.v1.png", "a.v1_2.jpg", "x/a.v1.jpg")
    names = list(output_names(own))
    assert names == ["a.v1.jpg", "a.v2.jpg", "a.v1_2.jpg", "A.V1_3.JPG", "a.v1.png", "a.v1_2_2.jpg", "x/a.v1.jpg"]
    assert len({n.casefold() for n in names}) == len(names)


def test_output_names_are_of_images_that_can_be_written() -> None:
    own = ("photo", "photo", "a.jfif", "b.v1", "photo.jpg", ".jpg", "c.WEBP", "d.pgm")
    names = ["photo.jpg", "photo_2.jpg", "a.jfif.jpg", "b.v1.jpg", "photo_3.jpg", ".jpg.jpg", "c.WEBP", "d.pgm.jpg"]
    assert list(output_names(own)) == names


def test_output_names_keep_bytes_that_are_not_utf8() -> None:
    own = [os.fsdecode(name) for name in (b"\xff.jpg", b"a.\xff")]
    assert [os.fsencode(name) for name in output_names(own)] == [b"\xff.jpg", b"a.\xff.jpg"]
