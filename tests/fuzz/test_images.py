"""Read damaged image files: headers, EXIF blocks, chunks with a correct checksum."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from tests.fuzz.guard import answer, fuzz, is_one_line, mutations
from tests.fuzz.mutations import damage_bytes
from utils.images.image_files import read_image, read_image_size
from utils.images.notes import image_notes

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)).resize((34, 24))


def exif() -> Image.Exif:
    """EXIF data with orientation 6, text, a fraction and a nested block."""
    tags = Image.Exif()
    tags[274], tags[271], tags[282] = 6, "camera", 72.0
    tags.get_ifd(0x8769)[36867] = "2024:01:01 00:00:00"
    return tags


def encoded(kind: str, picture: Image.Image = PICTURE, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


SAMPLES = {
    ".jpg": [
        encoded("jpeg", exif=exif()),
        encoded("jpeg", progressive=True),
        encoded("jpeg", PICTURE.convert("CMYK"), icc_profile=bytes(200)),
        encoded("mpo", save_all=True, append_images=[PICTURE]),
    ],
    ".png": [
        encoded("png", exif=exif()),
        encoded("png", PICTURE.convert("P"), transparency=3, icc_profile=bytes(200)),
        encoded("png", PICTURE.convert("I;16")),
        encoded("png", save_all=True, append_images=[PICTURE.rotate(90)]),
    ],
    ".bmp": [encoded("bmp"), encoded("bmp", PICTURE.convert("P")), encoded("bmp", PICTURE.convert("1"))],
    ".tif": [
        encoded("tiff", exif=exif()),
        encoded("tiff", compression="tiff_lzw"),
        encoded("tiff", PICTURE.convert("1"), compression="group4"),
        encoded("tiff", save_all=True, append_images=[PICTURE]),
        encoded("tiff", PICTURE.convert("I;16"), big_tiff=True),
    ],
    ".webp": [
        encoded("webp", exif=exif()),
        encoded("webp", PICTURE.convert("RGBA"), lossless=True),
        encoded("webp", save_all=True, append_images=[PICTURE.rotate(90)]),
    ],
    ".ppm": [
        encoded("ppm"),
        encoded("ppm", PICTURE.convert("L")),
        encoded("ppm", PICTURE.convert("1")),
        b"P6 # made by hand\n3 2\n65535\n" + bytes(36),
        b"P3 2 1 255 1 2 3 4 5 6\n",
    ],
}


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_damaged_chunk(png: bytes, chance: Random) -> bytes:
    """Damage one chunk, with correct length and checksum, and sometimes move it."""
    chunks, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    kind, content = chunks.pop(chance.randrange(len(chunks)))
    chunks.insert(chance.randrange(len(chunks) + 1), (kind, damage_bytes(content, chance)))
    return png[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def with_damaged_exif(suffix: str, chance: Random) -> bytes:
    """Damage the EXIF block of an intact file."""
    block = exif().tobytes()
    damaged = block[:6] + damage_bytes(block[6:], chance)[:60_000]
    return encoded({".jpg": "jpeg", ".png": "png", ".webp": "webp"}[suffix], exif=damaged)


def damaged_image(suffix: str, number: int) -> bytes:
    chance = Random(number)
    if number % 4 == 0 and suffix in (".jpg", ".png", ".webp"):
        return with_damaged_exif(suffix, chance)
    data = chance.choice(SAMPLES[suffix])
    if number % 4 == 1 and suffix == ".png":
        return with_damaged_chunk(data, chance)
    other = SAMPLES[chance.choice(list(SAMPLES)) if number % 16 == 2 else suffix][0]
    return damage_bytes(data, chance, other, front=min(len(data), 200))


def check_image(path: Path, as_stored: bool) -> None:
    header = answer(lambda: read_image_size(path), path)
    if header:
        assert all(type(side) is int and side > 0 for side in (*header.stored, *header.displayed))
        assert header.displayed in (header.stored, header.stored[::-1])
        notes = image_notes(path, as_stored=as_stored)
        assert all(is_one_line(kind) and is_one_line(what, 200) for kind, what in notes), notes
    image = answer(lambda: read_image(path, as_stored=as_stored), path)
    if image is not None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3


@pytest.mark.parametrize("suffix", SAMPLES)
@mutations(2500)
def test_damaged_images_are_read_or_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture, suffix: str, count: int
) -> None:
    fuzz(
        tmp_path / f"a{suffix}",
        count,
        lambda number: damaged_image(suffix, number),
        lambda path, number: check_image(path, number % 2 == 0),
    )


@pytest.mark.parametrize(
    ("suffix", "number"), [(suffix, i) for suffix, samples in SAMPLES.items() for i in range(len(samples))]
)
def test_the_samples_are_whole(tmp_path: Path, suffix: str, number: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(SAMPLES[suffix][number])
    assert read_image_size(path).displayed == read_image(path).shape[:2]
