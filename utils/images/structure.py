"""Inspect the structure of image files without decoding them.

Finds truncated files, whose missing part decoders silently fill with gray; files built to exhaust a decoder's time or
memory; EXIF data; and the header of a JPEG.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from utils.images import tiff

CUT_OFF = "the image is cut off before its end: fetch it again or remove it"
SCANS = "a JPEG of more than 100 scans, which would take minutes to decode: save it anew or remove it"
TOO_MUCH = "a TIFF whose directory asks for more than the file has: save it anew or remove it"
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff[^\xff]")  # bytes in between are skipped, as decoders do
_JPEG_SEGMENT, _JPEG_SIZE = struct.Struct(">BBH"), struct.Struct(">HH")
_MAX_SEGMENTS = 10_000  # of 64 kB, before the first scan
_MAX_SCANS = 100  # a progressive file has about 10
_MAX_CHUNKS = 100_000  # of a PNG: 800 MB in pieces of 8 kB
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers: ITU-T T.81, table B.1
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SOS, _APP1, _EXIF = 0xDA, 0xE1, b"Exif\0\0"
_EXIF_ORIENTATION = 274  # EXIF 2.32, table 4
_NORMAL = 1  # stored as displayed
_PNG = b"\x89PNG\r\n\x1a\n"
_PNM = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d+)" + rb"\s")  # netpbm: width, height, largest value
_PNM_HEADER_BYTES = 1 << 12


def find_fault(data: bytes | mmap.mmap) -> str:
    """Return the fault of an image file: CUT_OFF, SCANS, TOO_MUCH, or "" for none. Bytes after its end are allowed."""
    if is_jpeg(data):
        return jpeg_header(data).fault
    if tiff.is_tiff(data):
        if tiff.asks_too_much(data):
            return TOO_MUCH
        return CUT_OFF if tiff.is_cut_off(data) else ""
    return CUT_OFF if _is_cut_off(data) else ""


def _is_cut_off(data: bytes | mmap.mmap) -> bool:
    """Return True if a PNG, BMP or PPM file is shorter than its header says."""
    if data[:8] == _PNG:
        return all(kind != b"IEND" for kind, _ in islice(_png_chunks(data), _MAX_CHUNKS))
    if data[:2] == b"BM":
        return len(data) < _bmp_length(data)
    if pnm := _PNM.match(data[:_PNM_HEADER_BYTES]):
        kind, width, height, largest = map(int, pnm.groups())
        samples = width * height * (3 if kind == 6 else 1)
        return len(data) < pnm.end() + samples * (2 if largest > 255 else 1)
    return False


class JpegHeader(NamedTuple):
    """Data before the first scan of a JPEG file (ITU-T T.81, annex B)."""

    fault: str  # CUT_OFF in the header or in a scan, SCANS, or ""
    pixels: int  # of the largest frame, 0 if there is none
    exif: list[bytes]  # EXIF data without its prefix; decoders use the first

    @property
    def has_normal_orientation(self) -> bool:
        """Return True if no EXIF data asks for a rotation or flip."""
        return all(exif_orientation(exif) in (None, _NORMAL) for exif in self.exif)


def is_jpeg(data: bytes | mmap.mmap) -> bool:
    """Return True if the file starts with the JPEG signature."""
    return data[:2] == _JPEG


def jpeg_header(data: bytes | mmap.mmap) -> JpegHeader:
    """Parse the segments up to the first scan; a thumbnail is inside one of them. Too many segments are a fault."""
    at, pixels, exif = 2, 0, []
    components, is_progressive = 0, False
    for _ in range(_MAX_SEGMENTS):
        if at + _JPEG_SEGMENT.size > len(data):
            break
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if prefix != 0xFF or marker == 0xFF:  # stray bytes between segments
            next_marker = _JPEG_MARKER.search(data, at)
            at = next_marker.start() if next_marker else len(data)
        elif marker == _SOS:
            has_all = not is_progressive and sum(data[at + 4 : at + 5]) >= components
            return JpegHeader(_fault_of_scans(data, at, has_all), pixels, exif)
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD9:  # without a length
            at += 2
        else:
            if marker in _FRAMES and at + 9 <= len(data):
                height, width = _JPEG_SIZE.unpack_from(data, at + 5)
                pixels = max(pixels, height * width)
                components = max(components, sum(data[at + 9 : at + 10]))
                is_progressive |= marker in _PROGRESSIVE
            elif marker == _APP1 and data[at + 4 : at + 10] == _EXIF:
                exif.append(data[at + 10 : at + 2 + length])
            at += 2 + length
    return JpegHeader(CUT_OFF, pixels, exif)


def _fault_of_scans(data: bytes | mmap.mmap, at: int, has_all: bool) -> str:
    """Check the scans of a JPEG from the first one on; each costs the decoding time of a whole image.

    Args:
        at: offset of the first scan.
        has_all: whether it has all components at full precision: decoders stop after it.
    """
    if data.rfind(_JPEG_END, at) < 0:
        return CUT_OFF
    if has_all:
        return ""
    for _ in range(_MAX_SCANS):
        at = data.find(_JPEG_SCAN, at + 2)
        if at < 0:
            return ""
    return SCANS


def _png_chunks(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, slice]]:
    """Yield type and content slice of every complete chunk, up to IEND (PNG 3rd edition, section 5.3)."""
    at, kind = len(_PNG), b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            return
        yield kind, slice(at + 8, at + 8 + length)
        at += 12 + length


def png_exif(data: mmap.mmap) -> bytes:
    """Return the content of the eXIf chunk, also after the pixels, where Pillow does not look."""
    exif = next((data[content] for kind, content in _png_chunks(data) if kind == b"eXIf"), b"")
    return exif if exif[:2] in (b"II", b"MM") else b""  # libpng drops any other


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF data, 1 to 8; None if there is none or the data is damaged.

    Reads the first two bytes of the value, whatever its type, as OpenCV does. Pillow respects the type, and XMP.
    """
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])  # TIFF 6.0, section 2
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(f"{order}H6xH", data, entry)
            if tag == _EXIF_ORIENTATION:
                return value
    except struct.error:
        return None
    return None


def _bmp_length(data: bytes | mmap.mmap) -> int:
    """File length in bytes that the headers of a BMP imply; for a compressed one, the offset of its pixels."""

    def number(at: int, count: int) -> int:
        return int.from_bytes(data[at : at + count], "little", signed=count == 4)

    start = number(10, 4)
    if number(14, 4) == 12:  # OS/2's header
        width, height, bits, compression = number(18, 2), number(20, 2), number(24, 2), 0
    else:
        width, height, bits, compression = number(18, 4), number(22, 4), number(28, 2), number(30, 4)
    if compression not in (0, 3):  # BI_RGB, BI_BITFIELDS
        return start
    return start + (width * bits + 31) // 32 * 4 * abs(height)  # a negative height: rows from the top
