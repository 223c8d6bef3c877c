"""Image files: which are there, how large they are, their pixels."""

import functools
import io
import mmap
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from utils.errors import DataError
from utils.files import file_size, read_file, write_bytes
from utils.images.structure import JpegHeader, exif_orientation, fault, is_jpeg, jpeg_header, png_exif

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_MOST_PIXELS = 178_956_970  # from where on Pillow refuses, unless another library has cleared its limit, as SAHI does
_TOO_MANY = "too many pixels: reduce it, or remove it if it is damaged"
_PILLOW_ERRORS = (Image.DecompressionBombError, OSError, SyntaxError, TypeError, ValueError)


class DamagedImageError(DataError):
    """The content of an image file cannot be used."""


class ImageHeader(NamedTuple):
    """Size of an image file in pixels, as stored and as shown once its EXIF orientation is applied.

    Both are what `read_image` gives: OpenCV always turns a TIFF, and never follows an orientation that XMP alone has.
    """

    stored: tuple[int, int]  # height, width
    shown: tuple[int, int]


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder` itself, sorted by name. Suffixes count in any case."""
    return sorted(path for path in folder.iterdir() if is_image_name(path) and path.is_file())


def is_image_name(path: str | Path) -> bool:
    """Whether the suffix is one of an image."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def read_header(path: Path) -> ImageHeader:
    """Size of the image without decoding it; the file must be there to its end.

    Raises:
        DataError: the file is missing, no image, or cut off.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd but legible metadata
            (width, height), orientation = _probe(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _PILLOW_ERRORS as error:
        reason = "not an image, or damaged" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}): repair or remove it") from None
    return ImageHeader((height, width), (width, height) if orientation in _SIDEWAYS else (height, width))


def _probe(path: Path) -> tuple[tuple[int, int], int | None]:
    """Width and height as stored, and EXIF orientation."""
    if not file_size(path):
        raise UnidentifiedImageError
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if wrong := fault(data):  # asked first: Pillow takes minutes to give up a header without end
            raise DamagedImageError(f"{path}: {wrong}")
        with _opened(path) as image:
            exif = png_exif(data) if image.format == "PNG" else image.info.get("exif", b"")
            return image.size, exif_orientation(exif)


def _opened(source: Path | io.BytesIO) -> Image.Image:
    """An image whose header was read; DecompressionBombError where it is of too many pixels."""
    image = Image.open(source)
    if (pixels := image.width * image.height) > _MOST_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {_MOST_PIXELS} pixels")
    return image


def read_image(path: str | Path, *, as_stored: bool = False) -> np.ndarray:
    """Decode an image file.

    Args:
        path: a file of a format that Pillow and OpenCV know.
        as_stored: leave the EXIF orientation alone instead of turning the image as a viewer would.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing or cannot be opened.
        DamagedImageError: it is cut off, or cannot be decoded.
    """
    try:
        data = read_file(path)  # imread cannot open every unicode path on Windows
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): repair or remove it") from None
    header = jpeg_header(data) if is_jpeg(data) else None
    if wrong := _fault_of_jpeg(header) if header else fault(data) or _fault_for_pillow(data):
        raise DamagedImageError(f"{path}: {wrong}")
    if header and (as_stored or header.is_upright) and (image := _jpeg(data)) is not None:
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


def _jpeg(data: bytes) -> np.ndarray | None:
    """The pixels of a JPEG without faults, as stored: OpenCV's, in less time (benchmarks/data.py)."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # damaged, or of colors that it does not know, CMYK's
        return None


def _fault_of_jpeg(header: JpegHeader) -> str:
    return header.fault or (_TOO_MANY if header.pixels > _MOST_PIXELS else "")


def _fault_for_pillow(data: bytes) -> str:
    """Why not to decode what it does not open, or says to have more pixels than we take: OpenCV knows further formats,
    and takes 3 GB for a gigapixel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _opened(io.BytesIO(data)).close()
    except Image.DecompressionBombError:
        return _TOO_MANY
    except _PILLOW_ERRORS:
        return "cannot be read as an image: repair or remove it"
    return ""


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the form that the suffix names.

    Raises:
        OSError: the file cannot be written; no part of it is left.
    """
    encoded = _encoded(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if encoded is None:
        raise OSError(f"{path}: OpenCV cannot write this image")
    write_bytes(path, encoded)


@functools.cache
def can_write(suffix: str) -> bool:
    """Whether `write_image` knows this kind of file."""
    return _encoded(suffix, np.zeros((64, 64, 3), np.uint8)) is not None


def _encoded(suffix: str, bgr: np.ndarray) -> bytes | None:
    _silence_opencv()
    try:
        done, data = cv2.imencode(suffix, bgr) if suffix.isascii() else (False, None)
    except cv2.error:
        return None
    return data.tobytes() if done else None


def _silence_opencv() -> None:
    """OpenCV writes lines of its own to stderr; what went wrong is said in ours."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
