from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.errors import DataError
from utils.images import list_images, read_header, read_image, write_image

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (40, 60, 3), np.uint8), (9, 9), 3)


def save(path: Path, orientation: int | None = None) -> Path:
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.fromarray(PICTURE).save(path, exif=exif, quality=98)
    return path


def test_read_is_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), red)


def test_write_and_read_give_the_same_pixels(tmp_path: Path) -> None:
    write_image(tmp_path / "ü [1].png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "ü [1].png"), PICTURE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_grey_palette_and_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_says_the_shape_that_reading_gives(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path / "a.jpg", orientation)
    header = read_header(path)
    assert header.stored == (40, 60) == read_image(path, as_stored=True).shape[:2]
    assert header.shown == read_image(path).shape[:2]
    assert (header.shown == (60, 40)) == (orientation >= 5)


def test_a_long_thin_image_is_read(tmp_path: Path) -> None:
    """Fault of the predecessor: a 2000 x 1 image crashed."""
    Image.new("RGB", (2000, 1)).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").shown == (1, 2000)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    header = b"P6 60000 60000 255\n"
    (tmp_path / "a.ppm").write_bytes(header + b"\0" * 100)
    with pytest.raises(DataError, match=r"a\.ppm: cannot be read as an image"):
        read_header(tmp_path / "a.ppm")
    with pytest.raises(DataError, match=r"a\.ppm"):
        read_image(tmp_path / "a.ppm")


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"b\.jpg: no such file"):
            read(tmp_path / "b.jpg")


def test_bytes_after_the_end_of_a_jpeg_are_no_fault(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"camera data" * 100)
    assert read_header(path).shown == (40, 60)


def test_list_is_sorted_and_counts_no_file_twice(tmp_path: Path) -> None:
    """Fault of the predecessor: on Windows *.jpg and *.JPG counted every image twice."""
    for name in ("b.JPG", "a.jpg", "c.png", "notes.txt", "d.jpg.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.JPG", "c.png"]
