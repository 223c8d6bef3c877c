"""Small image files of every format, as bytes."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

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


def damage_pixels(jpeg: Path) -> Path:
    """Put a file in its place whose header is good and whose pixels cannot be decoded."""
    path = jpeg.with_suffix(".webp")
    with Image.open(jpeg) as image:
        image.save(path, lossless=True)
    jpeg.unlink()
    content = bytearray(path.read_bytes())
    content[60:-60] = b"\xff" * (len(content) - 120)
    path.write_bytes(content)
    return path
