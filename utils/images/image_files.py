"""List, measure, read and write image files."""

import functools
import io
import logging
import mmap
import multiprocessing
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import DataError
from utils.files import file_size, read_file, write_bytes
from utils.images.structure import JpegHeader, exif_orientation, find_fault, is_jpeg, jpeg_header, png_exif

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_MAX_PIXELS = 178_956_970  # Pillow's own limit, which other libraries such as SAHI remove
_TOO_MANY = "too many pixels: reduce it, or remove it if it is damaged"
_PILLOW_ERRORS = (Image.DecompressionBombError, OSError, SyntaxError, TypeError, ValueError)
log = logging.getLogger(__name__)


class DamagedImageError(DataError):
    """The content of an image file cannot be used."""


class ImageSize(NamedTuple):
    """Size of an image file in pixels, as stored and as displayed after its EXIF orientation is applied.

    Both match `read_image`: OpenCV always rotates a TIFF, and ignores an orientation given by XMP alone.
    """

    stored: tuple[int, int]  # height, width
    displayed: tuple[int, int]


@functools.cache
def load_simplejpeg() -> ModuleType | None:
    """Import simplejpeg; None where it is missing, which is logged once, by the main process."""
    try:
        import simplejpeg
    except ImportError as error:
        if multiprocessing.parent_process() is None:
            log.warning("simplejpeg is missing (%s): OpenCV decodes JPEG files, slower; pip install simplejpeg", error)
        return None
    return simplejpeg


def list_images(folder: Path) -> list[Path]:
    """List the image files directly in `folder`, sorted by name. Suffixes are case-insensitive."""
    return sorted(path for path in folder.iterdir() if is_image_name(path) and path.is_file())


def is_image_name(path: str | Path) -> bool:
    """Return True if the file name has an image suffix."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def read_image_size(path: Path) -> ImageSize:
    """Read the size of an image without decoding it, and check that the file is complete.

    Raises:
        DataError: the file is missing, not an image, or truncated.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about odd but readable metadata
            (width, height), orientation = _probe(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _PILLOW_ERRORS as error:
        reason = "not an image, or damaged" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}): repair or remove it") from None
    return ImageSize((height, width), (width, height) if orientation in _SIDEWAYS else (height, width))


def _probe(path: Path) -> tuple[tuple[int, int], int | None]:
    """Read width and height as stored, and the EXIF orientation."""
    if not file_size(path):
        raise UnidentifiedImageError
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if problem := find_fault(data):  # checked first: Pillow needs minutes to give up on an endless header
            raise DamagedImageError(f"{path}: {problem}")
        with _open(path) as image:
            exif = png_exif(data) if image.format == "PNG" else image.info.get("exif", b"")
            return image.size, exif_orientation(exif)


def _open(source: Path | io.BytesIO) -> Image.Image:
    """Open an image without decoding it; DecompressionBombError if it has too many pixels."""
    image = Image.open(source)
    if (pixels := image.width * image.height) > _MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {_MAX_PIXELS} pixels")
    return image


def read_image(path: str | Path, *, as_stored: bool = False) -> np.ndarray:
    """Decode an image file.

    Args:
        path: a file in a format that Pillow and OpenCV know.
        as_stored: ignore the EXIF orientation instead of rotating the image as a viewer would.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing or cannot be opened.
        DamagedImageError: it is truncated, or cannot be decoded.
    """
    try:
        data = read_file(path)  # imread cannot open every unicode path on Windows
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): repair or remove it") from None
    header = jpeg_header(data) if is_jpeg(data) else None
    if problem := _fault_of_jpeg(header) if header else find_fault(data) or _fault_for_pillow(data):
        raise DamagedImageError(f"{path}: {problem}")
    if header and (as_stored or header.has_normal_orientation) and (image := _decode_jpeg(data)) is not None:
        return image
    _silence_opencv()
    flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise DamagedImageError(f"{path}: cannot be decoded ({error.err}): repair or remove it") from None
    if image is None:
        raise DamagedImageError(f"{path}: cannot be read as an image: repair or remove it")
    return image


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """Decode an intact JPEG as stored, to OpenCV's pixels, but faster (benchmarks/data.py); None: use OpenCV."""
    if (simplejpeg := load_simplejpeg()) is None:
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # damaged, or in unsupported colors such as CMYK
        return None


def _fault_of_jpeg(header: JpegHeader) -> str:
    return header.fault or (_TOO_MANY if header.pixels > _MAX_PIXELS else "")


def _fault_for_pillow(data: bytes) -> str:
    """Refuse files that Pillow cannot open, or with too many pixels; OpenCV would take 3 GB for a gigapixel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _open(io.BytesIO(data)).close()
    except Image.DecompressionBombError:
        return _TOO_MANY
    except _PILLOW_ERRORS:
        return "cannot be read as an image: repair or remove it"
    return ""


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix.

    Raises:
        OSError: the file cannot be written; no partial file is left.
    """
    encoded = _encode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if encoded is None:
        raise OSError(f"{path}: OpenCV cannot write this image")
    write_bytes(path, encoded)


@functools.cache
def can_write(suffix: str) -> bool:
    """Return True if `write_image` can write files with this suffix."""
    return _encode(suffix, np.zeros((64, 64, 3), np.uint8)) is not None


def _encode(suffix: str, bgr: np.ndarray) -> bytes | None:
    _silence_opencv()
    try:
        success, data = cv2.imencode(suffix, bgr) if suffix.isascii() else (False, None)
    except cv2.error:
        return None
    return data.tobytes() if success else None


def _silence_opencv() -> None:
    """Stop OpenCV from writing to stderr; our own errors say what failed."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
