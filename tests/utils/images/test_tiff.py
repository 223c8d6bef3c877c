import io
import struct

import numpy as np
import pytest
from PIL import Image

from utils.images.tiff import asks_too_much, count_frames, is_cut_off, is_tiff

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
BASIC = ((256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
STRIPS = ((273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 48), (279, 4, 1, 3072))
PIXELS = bytes(64 * 48)


def tiff(*directories: tuple, order: str = "<") -> bytes:
    """TIFF with gray pixels, followed by directories of (tag, type, count, value or offset)."""
    mark, at, parts = (b"II*\0" if order == "<" else b"MM\0*"), 8 + len(PIXELS), []
    for number, entries in enumerate(directories, 1):
        length = 2 + 12 * len(entries) + 4
        following = at + length if number < len(directories) else 0
        rows = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
        parts.append(struct.pack(f"{order}H", len(entries)) + rows + struct.pack(f"{order}I", following))
        at += length
    return mark + struct.pack(f"{order}I", 8 + len(PIXELS)) + PIXELS + b"".join(parts)


def saved(**options: object) -> bytes:
    written = io.BytesIO()
    PICTURE.save(written, "TIFF", append_images=[PICTURE] * 4 * ("save_all" in options), **options)
    return written.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"big_tiff": True},
        {"compression": "tiff_lzw"},
        {"compression": "jpeg"},
        {"strip_size": 500, "compression": "tiff_deflate"},
        {"save_all": True},
        {"big_tiff": True, "save_all": True},
    ],
    ids=str,
)
def test_a_file_of_pillow_is_whole_and_a_part_of_it_is_not(options: dict) -> None:
    data = saved(**options)
    assert is_tiff(data)
    assert not asks_too_much(data)
    assert not is_cut_off(data)
    assert count_frames(data, 100) == (5 if "save_all" in options else 1)
    assert is_cut_off(data[: len(data) // 12])


@pytest.mark.parametrize("order", "<>")
def test_both_orders_of_bytes(order: str) -> None:
    data = tiff((*BASIC, *STRIPS), order=order)
    assert (asks_too_much(data), is_cut_off(data), count_frames(data, 9)) == (False, False, 1)
    longer = tiff((*BASIC, (273, 4, 1, 500), *STRIPS[1:3], (279, 4, 1, 30_000)), order=order)
    assert is_cut_off(longer)


def test_values_that_all_lie_in_one_place_ask_too_much() -> None:
    """libtiff copied each value: 3 GB from a file of 1 MB."""
    many = tuple((1000 + i, 1, 2000, 8) for i in range(300))
    assert asks_too_much(tiff((*BASIC, *STRIPS, *many)))
    assert not asks_too_much(tiff((*BASIC, *STRIPS, *many[:1])))


def test_the_same_tag_many_times_asks_too_much() -> None:
    assert asks_too_much(tiff((*BASIC, *STRIPS, *[(1000, 1, 2000, 8)] * 300)))


@pytest.mark.parametrize("tag", [273, 279])
def test_places_of_pixels_are_whole_numbers(tag: int) -> None:
    """Pillow took 7 s to read 10 MB of them as fractions."""
    odd = tuple((tag, 5, 100, 8) if entry[0] == tag else entry for entry in STRIPS)
    assert asks_too_much(tiff((*BASIC, *odd)))


def test_a_chain_of_directories_that_bites_its_tail_is_counted_to_the_limit() -> None:
    data = tiff((*BASIC, *STRIPS))
    assert count_frames(data[:-4] + data[4:8], 50) == 50


@pytest.mark.parametrize(
    "data", [b"", b"II", b"II*", b"II*\0", b"MM\0*\0\0", b"II+\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff"]
)
def test_a_file_that_ends_in_its_header_is_cut_off_if_it_is_a_tiff(data: bytes) -> None:
    if is_tiff(data):
        assert not asks_too_much(data)
        assert is_cut_off(data)
        assert count_frames(data, 9) == 0


def test_no_place_of_a_directory_is_trusted() -> None:
    for place in (2**31, 2**32 - 1):
        assert is_cut_off(b"II*\0" + struct.pack("<I", place) + PIXELS)
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1)
    assert is_cut_off(big)
    assert count_frames(big, 9) == 0
