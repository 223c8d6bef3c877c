"""What the directories of a TIFF file say (TIFF 6.0, section 2; BigTIFF), read before a library trusts them."""

import mmap
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _SWAPPED, _BIG = 42, 42 << 8, 43  # libtiff takes a 42 in the wrong order
_PIXELS = ((273, 279), (324, 325))  # tags of places and lengths: of strips, of tiles
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {3: "u2", 4: "u4", 13: "u4", 16: "u8"}  # types of places and lengths
_MOST_ENTRIES = 65_535  # of a directory


class _Form(NamedTuple):
    """How a file writes its numbers."""

    order: str  # of their bytes
    word: str  # a place in the file
    first: int  # where the place of the first directory is
    count: str  # the number of entries

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, number of values, and the place of these."""
        return struct.Struct(f"{self.order}HH{self.word}{self.word}")


class _Values(NamedTuple):
    kind: int
    count: int
    place: int

    @property
    def length(self) -> int:
        return _SIZES.get(self.kind, 1) * self.count


def is_tiff(data: bytes | mmap.mmap) -> bool:
    """Whether the file starts as a TIFF does."""
    return _form(data) is not None


def asks_too_much(data: bytes | mmap.mmap) -> bool:
    """Whether the values of the first directory, side by side, are longer than the file.

    A decoder copies each of them, and so takes any memory where thousands lie in one place.
    """
    values = _first_directory(data)
    odd = any(values[tag].kind not in _WHOLE for tags in _PIXELS for tag in tags if tag in values)
    return odd or sum(each.length for each in values.values()) > len(data)


def is_cut_off(data: bytes | mmap.mmap) -> bool:
    """Whether the first directory, or the last strip or tile of its picture, ends behind the file."""
    values, ends = _first_directory(data), [0.0]
    for places, lengths in _PIXELS:
        if places in values and lengths in values:
            starts, counts = (_numbers(data, values[tag]) for tag in (places, lengths))
            common = min(len(starts), len(counts))
            ends.extend((starts[:common] + counts[:common]).tolist())
    return not values or len(data) < max(ends)


def count_frames(data: bytes | mmap.mmap, most: int) -> int:
    """Directories, up to so many; a chain that bites its tail has no end."""
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
    """Place and number of the entries of every directory, as far as the file goes."""
    form = _form(data)
    place = struct.Struct(form.order + form.word)
    number = struct.Struct(form.order + form.count)
    try:
        (at,) = place.unpack_from(data, form.first)
        while at:
            (count,) = number.unpack_from(data, at)
            end = at + number.size + count * form.entry.size
            (following,) = place.unpack_from(data, end)
            yield at + number.size, count
            at = following
    except (struct.error, OverflowError):
        return


def _first_directory(data: bytes | mmap.mmap) -> dict[int, _Values]:
    """The values of each tag; of a tag that is there twice, all but the first are under numbers that are no tags."""
    entry = _form(data).entry
    found: dict[int, _Values] = {}
    at, count = next(_directories(data), (0, 0))
    room = struct.calcsize(f"={_form(data).word}")
    for k in range(min(count, _MOST_ENTRIES)):
        tag, kind, number, place = entry.unpack_from(data, at + k * entry.size)
        values = _Values(kind, number, place)
        if values.length <= room:
            values = values._replace(place=at + (k + 1) * entry.size - room)
        found[tag if tag not in found else -k] = values
    return found


def _numbers(data: bytes | mmap.mmap, values: _Values) -> np.ndarray:
    """(N,) float64, as many of them as the file has."""
    kind = np.dtype(_WHOLE[values.kind]).newbyteorder(_form(data).order)
    content = data[values.place : values.place + values.length]
    return np.frombuffer(content, kind, len(content) // kind.itemsize).astype(np.float64)
