"""Copy images with the EXIF orientation reset, so that every reader displays them as stored."""

import shutil
import struct
import zlib
from pathlib import Path

import cv2
from PIL import Image

from utils.images.image_files import read_image, read_image_size
from utils.images.structure import png_exif

_ORIENTATION, _SHORT = 274, 3  # EXIF 2.32, table 4; TIFF 6.0, section 2
_NORMAL = 1  # stored as displayed
_EXIF_START = b"Exif\0\0"


def copy_with_normal_orientation(source: Path, copy: Path) -> None:
    """Copy an image with its EXIF orientation set to 1, "as stored"; all other bytes stay the same.

    A file whose EXIF data is scattered is re-encoded as PNG under the same name: readers go by the content.
    """
    data = source.read_bytes()
    with Image.open(source) as image:
        is_png = image.format == "PNG"
        exif = png_exif(data) if is_png else image.info.get("exif", b"")
    old, new = exif, _with_normal_orientation(exif)
    if is_png:
        old, new = _png_chunk(old), _png_chunk(new)
    if exif and old in data:
        copy.write_bytes(data.replace(old, new))
    else:
        shutil.copyfile(source, copy)
    size = read_image_size(copy)
    if size.displayed != size.stored:
        pixels = read_image(source, as_stored=True)
        copy.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def _with_normal_orientation(exif: bytes) -> bytes:
    """Set every orientation in the first directory of EXIF data to 1 (TIFF 6.0, section 2)."""
    data, start = bytearray(exif), len(_EXIF_START) if exif.startswith(_EXIF_START) else 0
    order = ">" if exif[start : start + 2] == b"MM" else "<"
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + directory)
        for entry in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, entry) == (_ORIENTATION,):
                struct.pack_into(f"{order}HHIHxx", data, entry, _ORIENTATION, _SHORT, 1, _NORMAL)
    except struct.error:  # truncated
        pass
    return bytes(data)


def _png_chunk(exif: bytes) -> bytes:
    """Build type, content and checksum of an eXIf chunk (PNG 3rd edition, section 5.3)."""
    chunk = b"eXIf" + exif
    return chunk + struct.pack(">I", zlib.crc32(chunk))
