"""Copies of images that every reader shows as they are stored, whether it follows EXIF's orientation or not."""

import shutil
import struct
import zlib
from pathlib import Path

import cv2
from PIL import Image

from utils.images.image_files import read_header, read_image
from utils.images.structure import png_exif

_ORIENTATION, _SHORT = 274, 3  # EXIF 2.32, table 4; TIFF 6.0, section 2
_UPRIGHT = 1
_EXIF_START = b"Exif\0\0"


def copy_upright(source: Path, copy: Path) -> None:
    """Copy an image, its EXIF orientation set to 1, "as stored"; everything else keeps its bytes.

    A file whose EXIF data is scattered is saved anew as a PNG, whatever its suffix: readers go by the content.
    """
    data = source.read_bytes()
    with Image.open(source) as image:
        is_png = image.format == "PNG"
        exif = png_exif(data) if is_png else image.info.get("exif", b"")
    old, new = (_png_chunk(exif), _png_chunk(_upright(exif))) if is_png else (exif, _upright(exif))
    if exif and old in data:
        copy.write_bytes(data.replace(old, new))
    else:
        shutil.copyfile(source, copy)
    header = read_header(copy)
    if header.shown != header.stored:
        pixels = read_image(source, as_stored=True)
        copy.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def _upright(exif: bytes) -> bytes:
    """EXIF data with orientation 1 wherever its first directory has one (TIFF 6.0, section 2)."""
    data, start = bytearray(exif), len(_EXIF_START) if exif.startswith(_EXIF_START) else 0
    order = ">" if exif[start : start + 2] == b"MM" else "<"
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + directory)
        for entry in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, entry) == (_ORIENTATION,):
                struct.pack_into(f"{order}HHIHxx", data, entry, _ORIENTATION, _SHORT, 1, _UPRIGHT)
    except struct.error:  # ends too early
        pass
    return bytes(data)


def _png_chunk(exif: bytes) -> bytes:
    """Type, content and checksum of an eXIf chunk (PNG 3rd edition, section 5.3)."""
    chunk = b"eXIf" + exif
    return chunk + struct.pack(">I", zlib.crc32(chunk))
