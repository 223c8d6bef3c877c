"""Image files: which are there, how large they are, their pixels."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
_EXIF_ORIENTATION = 274  # EXIF 2.32, table 4
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_JPEG_END = b"\xff\xd9"
_TAIL_BYTES = 1 << 16  # cameras append a few kilobytes of their own after the end marker


class ImageHeader(NamedTuple):
    """Size of an image file in pixels, as stored and as shown once its EXIF orientation is applied."""

    stored: tuple[int, int]  # height, width
    shown: tuple[int, int]


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder`, sorted by name. Suffixes count in any case."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def read_header(path: Path) -> ImageHeader:
    """Size of the image without decoding it; a JPEG must have its end.

    Raises:
        DataError: the file is missing, no image, or cut off.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
            is_jpeg = image.format == "JPEG"
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = "not an image, or damaged" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}): repair or remove it") from None
    if is_jpeg and not _has_end(path):
        raise DataError(f"{path}: the JPEG is cut off before its end: fetch it again or remove it")
    return ImageHeader((height, width), (width, height) if sideways else (height, width))


def _has_end(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return _JPEG_END in file.read()


def read_image(path: Path, *, as_stored: bool = False) -> np.ndarray:
    """Decode an image file.

    Args:
        path: any file that OpenCV reads.
        as_stored: leave the EXIF orientation alone instead of turning the image as a viewer would.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    try:
        encoded = np.fromfile(path, np.uint8)  # imread cannot open every unicode path on Windows
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    try:
        image = cv2.imdecode(encoded, flags) if len(encoded) else None
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({error.err}): repair or remove it") from None
    if image is None:
        raise DataError(f"{path}: cannot be read as an image: repair or remove it")
    return image


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the form that the suffix names.

    Raises:
        OSError: the file cannot be written.
    """
    encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(f"{path}: OpenCV cannot write this image")
    path.write_bytes(data.tobytes())
