"""Check the directories of a TIFF file (TIFF 6.0, section 2; BigTIFF) before a library trusts them."""

import mmap
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _SWAPPED, _BIG = 42, 42 << 8, 43  # libtiff accepts a 42 in the wrong byte order
_PIXELS = ((273, 279), (324, 325))  # tags of offsets and lengths: of strips, of tiles
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {3: "u2", 4: "u4", 13: "u4", 16: "u8"}  # types of offsets and lengths
_MAX_ENTRIES = 65_535  # of a directory


class _Form(NamedTuple):
    """Number format of a TIFF variant."""

    order: str  # byte order, for struct
    word: str  # struct code of an offset
    first: int  # position of the offset of the first directory
    count: str  # struct code of the number of entries

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, number of values, and their offset."""
        return struct.Struct(f"{self.order}HH{self.word}{self.word}")


class _Values(NamedTuple):
    kind: int
    count: int
    offset: int

    @property
    def length(self) -> int:
        return _SIZES.get(self.kind, 1) * self.count


def is_tiff(data: bytes | mmap.mmap) -> bool:
    """Return True if the file starts with a TIFF signature."""
    return _form(data) is not None


def asks_too_much(data: bytes | mmap.mmap) -> bool:
    """Return True if the values of the first directory take more bytes than the file has.

    A decoder copies each value, so thousands of entries with the same offset could exhaust the memory.
    """
    values = _first_directory(data)
    odd = any(values[tag].kind not in _WHOLE for tags in _PIXELS for tag in tags if tag in values)
    return odd or sum(each.length for each in values.values()) > len(data)


def is_cut_off(data: bytes | mmap.mmap) -> bool:
    """Return True if the first directory, or a strip or tile of its image, extends beyond the end of the file."""
    values, ends = _first_directory(data), [0.0]
    for offsets, lengths in _PIXELS:
        if offsets in values and lengths in values:
            starts, counts = (_numbers(data, values[tag]) for tag in (offsets, lengths))
            common = min(len(starts), len(counts))
            ends.extend((starts[:common] + counts[:common]).tolist())
    return not values or len(data) < max(ends)


def count_frames(data: bytes | mmap.mmap, most: int) -> int:
    """Count the directories, at most `most` of them; a circular chain has no end."""
    return sum(1 for _ in islice(_directories(data), most))


def _form(data: bytes | mmap.mmap) -> _Form | None:
    order = _ORDERS.get(data[:2])
    if order is None or len(data) < 4:
        return None
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version in (_CLASSIC, _SWAPPED):
        return _Form(order, "I", 4, "H")
    return _Form(order, "Q", 8, "Q") if version == _BIG else None


def _directories(data: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield offset and number of the entries of every directory inside the file."""
    form = _form(data)
    word = struct.Struct(form.order + form.word)
    number = struct.Struct(form.order + form.count)
    try:
        (at,) = word.unpack_from(data, form.first)
        while at:
            (count,) = number.unpack_from(data, at)
            end = at + number.size + count * form.entry.size
            (following,) = word.unpack_from(data, end)
            yield at + number.size, count
            at = following
    except (struct.error, OverflowError):
        return


def _first_directory(data: bytes | mmap.mmap) -> dict[int, _Values]:
    """Values by tag; repeated entries of a tag get negative keys, which are no tags."""
    entry = _form(data).entry
    values_of: dict[int, _Values] = {}
    at, count = next(_directories(data), (0, 0))
    room = struct.calcsize(f"={_form(data).word}")
    for k in range(min(count, _MAX_ENTRIES)):
        tag, kind, number, offset = entry.unpack_from(data, at + k * entry.size)
        values = _Values(kind, number, offset)
        if values.length <= room:
            values = values._replace(offset=at + (k + 1) * entry.size - room)
        values_of[tag if tag not in values_of else -k] = values
    return values_of


def _numbers(data: bytes | mmap.mmap, values: _Values) -> np.ndarray:
    """(N,) float64, as many of the values as the file contains."""
    kind = np.dtype(_WHOLE[values.kind]).newbyteorder(_form(data).order)
    content = data[values.offset : values.offset + values.length]
    return np.frombuffer(content, kind, len(content) // kind.itemsize).astype(np.float64)
