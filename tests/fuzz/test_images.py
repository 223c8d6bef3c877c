"""Read damaged image files: headers, EXIF blocks, chunks with a correct checksum."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.support.fuzzing.guard import answer, fuzz, is_one_line, mutations
from tests.support.fuzzing.image_bytes import SAMPLES, encoded, exif, png_chunk
from tests.support.fuzzing.mutations import damage_bytes
from utils.images.image_files import read_image, read_image_size
from utils.images.notes import image_notes


def with_damaged_chunk(png: bytes, chance: Random) -> bytes:
    """Damage one chunk, with correct length and checksum, and sometimes move it."""
    chunks, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    kind, content = chunks.pop(chance.randrange(len(chunks)))
    chunks.insert(chance.randrange(len(chunks) + 1), (kind, damage_bytes(content, chance)))
    return png[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def with_damaged_exif(suffix: str, chance: Random) -> bytes:
    """Damage the EXIF block of an intact file."""
    block = exif().tobytes()
    damaged = block[:6] + damage_bytes(block[6:], chance)[:60_000]
    return encoded({".jpg": "jpeg", ".png": "png", ".webp": "webp"}[suffix], exif=damaged)


def damaged_image(suffix: str, number: int) -> bytes:
    chance = Random(number)
    if number % 4 == 0 and suffix in (".jpg", ".png", ".webp"):
        return with_damaged_exif(suffix, chance)
    data = chance.choice(SAMPLES[suffix])
    if number % 4 == 1 and suffix == ".png":
        return with_damaged_chunk(data, chance)
    other = SAMPLES[chance.choice(list(SAMPLES)) if number % 16 == 2 else suffix][0]
    return damage_bytes(data, chance, other, front=min(len(data), 200))


def check_image(path: Path, as_stored: bool) -> None:
    header = answer(lambda: read_image_size(path), path)
    if header:
        assert all(type(side) is int and side > 0 for side in (*header.stored, *header.displayed))
        assert header.displayed in (header.stored, header.stored[::-1])
        notes = image_notes(path, as_stored=as_stored)
        assert all(is_one_line(kind) and is_one_line(what, 200) for kind, what in notes), notes
    image = answer(lambda: read_image(path, as_stored=as_stored), path)
    if image is not None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3


@pytest.mark.parametrize("suffix", SAMPLES)
@mutations(2500)
def test_damaged_images_are_read_or_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture, suffix: str, count: int
) -> None:
    fuzz(
        tmp_path / f"a{suffix}",
        count,
        lambda number: damaged_image(suffix, number),
        lambda path, number: check_image(path, number % 2 == 0),
    )


@pytest.mark.parametrize(
    ("suffix", "number"), [(suffix, i) for suffix, samples in SAMPLES.items() for i in range(len(samples))]
)
def test_the_samples_are_whole(tmp_path: Path, suffix: str, number: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(SAMPLES[suffix][number])
    assert read_image_size(path).displayed == read_image(path).shape[:2]
