"""Read copies without EXIF orientation back with our reader, Pillow and OpenCV."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.fuzzing.broken_samples import exif, picture
from utils.images.image_files import read_image, read_image_size
from utils.images.orientation import copy_with_normal_orientation

MAKE, MODEL, ORIENTATION = 271, 272, 274


def save(path: Path, data: bytes) -> None:
    """Image of 128 x 96 px with this EXIF data."""
    Image.fromarray(picture(1)).save(path, exif=data)


def assert_upright(source: Path, copy: Path) -> None:
    stored = read_image(source, as_stored=True)
    assert read_image_size(copy) == ((96, 128), (96, 128))
    np.testing.assert_array_equal(read_image(copy), stored)
    np.testing.assert_array_equal(cv2.imread(str(copy))[:, :, ::-1], stored)
    with Image.open(copy) as image:
        assert ImageOps.exif_transpose(image).size == (128, 96)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_only_the_orientation_changes(tmp_path: Path, suffix: str, orientation: int) -> None:
    source, copy = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    tags = exif(orientation)
    tags[MAKE], tags[MODEL] = "a maker", "a model"
    save(source, tags.tobytes())
    copy_with_normal_orientation(source, copy)
    assert_upright(source, copy)
    one, other = source.read_bytes(), copy.read_bytes()
    assert len(one) == len(other)
    assert sum(a != b for a, b in zip(one, other, strict=True)) <= (
        5 if suffix == ".png" else 1
    )  # a PNG has a checksum
    with Image.open(copy) as image:
        assert dict(image.getexif()) == {MAKE: "a maker", MODEL: "a model", ORIENTATION: 1}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_either_byte_order_and_long_numbers(tmp_path: Path, order: str, kind: int) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    number = struct.pack(f"{order}{'Hxx' if kind == 3 else 'I'}", 6)
    entry = struct.pack(f"{order}HHI", ORIENTATION, kind, 1) + number
    data = mark + struct.pack(f"{order}IH", 8, 1) + entry + struct.pack(f"{order}I", 0)
    source, copy = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save(source, b"Exif\0\0" + data)
    assert Image.open(source).getexif()[ORIENTATION] == 6
    copy_with_normal_orientation(source, copy)
    assert_upright(source, copy)


def test_scattered_data_makes_it_a_png(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save(source, exif(6).tobytes())
    data = source.read_bytes()
    at = data.index(b"Exif\0\0") + 6
    length = struct.unpack(">H", data[at - 8 : at - 6])[0] - 8
    first, rest = data[at : at + 8], data[at + 8 : at + length]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in (first, rest))
    source.write_bytes(data[: at - 10] + segments + data[at + length :])
    assert Image.open(source).getexif()[ORIENTATION] == 6
    copy_with_normal_orientation(source, copy)
    assert_upright(source, copy)
    assert Image.open(copy).format == "PNG"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_nonsense_is_copied(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save(source, b"Exif\0\0MM\0*\0\0\0\xff\0\1")
    copy_with_normal_orientation(source, copy)
    assert copy.read_bytes() == source.read_bytes()
