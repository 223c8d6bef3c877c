"""Harmless peculiarities of image files, read from their headers."""

import mmap
import struct
import warnings
from pathlib import Path

from PIL import Image

from utils.images.structure import exif_orientation, png_exif
from utils.images.tiff import count_frames

EXIF = "images that EXIF turns"
SIXTEEN_BITS = "images of more than 8 bits a channel"
GRAY = "gray images"
CMYK = "CMYK images"
ALPHA = "images with transparency or a palette"
FRAMES = "images of several frames"
HUGE = "images over 50 megapixels"

_HUGE = 50_000_000  # px
_MAX_FRAMES = 1000  # that are counted in a TIFF
_ALPHA_MODES = ("LA", "La", "P", "PA", "RGBA", "RGBa")
_ARITHMETIC_ERRORS = (IndexError, KeyError, OverflowError, struct.error, TypeError, ValueError)
_PILLOW_ERRORS = (EOFError, Image.DecompressionBombError, OSError, SyntaxError, *_ARITHMETIC_ERRORS)


def image_notes(path: Path, *, as_stored: bool) -> list[tuple[str, str]]:
    """List the peculiarities of an image: a constant of this module, and how it is handled.

    Args:
        path: an image that read_header could read.
        as_stored: its boxes refer to the stored orientation, not to the displayed one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about odd but readable metadata
            return _notes_of_header(path, as_stored)
    except _PILLOW_ERRORS:  # in frames after the first, for example, which are not used
        return []


def _notes_of_header(path: Path, as_stored: bool) -> list[tuple[str, str]]:
    with (
        Image.open(path) as image,
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        orientation = exif_orientation(png_exif(data) if image.format == "PNG" else image.info.get("exif", b""))
        is_tiff = image.format == "TIFF"  # Pillow needs quadratic time to count its frames
        frames = count_frames(data, _MAX_FRAMES) if is_tiff else getattr(image, "n_frames", 1)
        bands, pixels = image.getbands(), image.width * image.height
        notes = []
        if orientation in range(2, 9):
            frame = "the stored image, which is not rotated" if as_stored else "the displayed image, which is rotated"
            notes.append((EXIF, f"orientation {orientation}: boxes refer to {frame}"))
        if _is_deep(image):
            notes.append((SIXTEEN_BITS, "read as 8 bits"))
        if image.mode in _ALPHA_MODES or "transparency" in image.info:
            notes.append((ALPHA, f"{image.mode}, read as opaque RGB"))
        elif len(bands) == 1:
            notes.append((GRAY, "read as RGB"))
        elif image.mode == "CMYK":
            notes.append((CMYK, "read as RGB"))
        if frames > 1 and image.format != "MPO":  # cameras store a preview in it
            more = " or more" if is_tiff and frames == _MAX_FRAMES else ""
            notes.append((FRAMES, f"{frames:,}{more}, the first is read"))
        if pixels > _HUGE:
            notes.append((HUGE, f"{image.width}x{image.height}"))
        return notes


def _is_deep(image: Image.Image) -> bool:
    """Return True if a channel has more than 8 bits, which Pillow's mode does not tell for color images."""
    if image.mode[0] in "IF":
        return True
    arguments = image.tile[0].args if image.tile else ()
    if image.format == "PPM":
        return isinstance(arguments, tuple) and isinstance(arguments[-1], int) and arguments[-1] > 255
    return ";16" in str(arguments)
