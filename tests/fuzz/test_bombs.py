"""Read files made to exhaust a reader, and paths that are no regular files."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fuzzing.guard import answer, in_time
from tests.support.fuzzing.image_bytes import SAMPLES, encoded, png_chunk
from utils.errors import DataError
from utils.images.image_files import read_image, read_image_size
from utils.images.notes import image_notes
from utils.labels.coco_json import CocoLabels
from utils.labels.data_config import load_data_config
from utils.labels.readers import LabelFile, read_voc, read_yolo

LABEL_OF = {"cat": 1, "dog": 2}
SIZE = (100, 200)  # height, width
SIDE = 100_000  # px; 10 gigapixels are 30 GB decoded
READERS: dict[str, Callable[[Path], object]] = {
    "voc": lambda path: read_voc(path, SIZE, LABEL_OF),
    "yolo": lambda path: read_yolo(path, SIZE, LABEL_OF),
    "coco": lambda path: CocoLabels(path, LABEL_OF),
    "yaml": load_data_config,
    "header": read_image_size,
    "image": read_image,
}


def refusal(reader: str, path: Path) -> str:
    """Return the message of the DataError with which a reader refuses a file, within the time limit."""
    with in_time(), pytest.raises(DataError) as error:
        READERS[reader](path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def entities(count: int, times: int) -> str:
    """A document whose last entity is `times` to the power of `count` characters long."""
    lines = [f'<!ENTITY e{i + 1} "{f"&e{i};" * times}">' for i in range(count)]
    return f'<!DOCTYPE a [<!ENTITY e0 "x">{"".join(lines)}]><annotation>&e{count};</annotation>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(entities(9, 10), id="a thousand million laughs"),
        pytest.param(entities(1, 50_000).replace("&e1;", "&e1;" * 50_000), id="quadratic"),
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation><object><name>&e;</name></object></annotation>',
        '<!DOCTYPE a [<!ENTITY % e SYSTEM "http://127.0.0.1:9/e.dtd">%e;]><annotation/>',
        '<!DOCTYPE a SYSTEM "file:///dev/zero"><annotation/>',
    ],
)
def test_entities_are_neither_expanded_nor_fetched(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    message = refusal("voc", path)
    assert "has a DOCTYPE" in message
    assert "root:" not in message


@pytest.mark.parametrize("ends", [0, 1], ids=["open", "closed"])
@pytest.mark.parametrize("tag", ["a", "object"])
def test_xml_100_000_deep(tmp_path: Path, tag: str, ends: int) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"<annotation>" + f"<{tag}>".encode() * 100_000 + f"</{tag}>".encode() * 100_000 * ends)
    with path.open("ab") as file:
        file.write(b"</annotation>" * ends)
    with in_time():
        labels = answer(lambda: read_voc(path, SIZE, LABEL_OF), path)
    assert labels is None or labels.boxes == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * (50 << 20), id="50 MB of ["),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="100,000 braces"),
        pytest.param(b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="100,000 lists"),
        pytest.param(b'{"images": [{"id": ' + b"9" * 1_000_000 + b"}]}", id="a million digits"),
        pytest.param(b'{"images": [], "annotations": [], "categories": {' + b'"a":{' * 900 + b"}" * 901, id="cut off"),
        pytest.param(b'"' + b"x" * (20 << 20) + b'"', id="one text"),
    ],
)
def test_json_bombs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert len(refusal("coco", tmp_path / "a.json")) < 500


def test_json_names_that_are_trees(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    deep = b"[" * 900 + b"]" * 900
    path.write_bytes(
        b'{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 2, "name": %b}], "annotations": '
        b'[{"image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2]}, {"image_id": 1, "category_id": %b, "bbox": %b}]}'
        % (deep, deep, deep)
    )
    source = answer(lambda: CocoLabels(path, LABEL_OF), path)
    assert source is None or len(source.read(0, SIZE).boxes) == 1


def bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIIIIiiHHIIIIII", b"BM", 58, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(4)


def jpeg(side: int) -> bytes:
    data = SAMPLES[".jpg"][1]
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return SAMPLES[".png"][0][:8] + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def tiff(side: int) -> bytes:
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 8)]
    return struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", *tag) for tag in tags
    ) + bytes(4)  # fmt: skip


def webp(side: int) -> bytes:
    """Make a WebP of the extended format with a huge canvas, 24 bits a side, and few pixels."""
    data = bytearray(SAMPLES[".webp"][0])
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".png", png(SIDE, SIDE)),
        (".jpg", jpeg(65_500)),
        (".bmp", bmp(SIDE, SIDE)),
        (".bmp", bmp(SIDE, -SIDE)),
        (".tif", tiff(SIDE)),
        (".webp", webp(SIDE)),
        (".ppm", b"P6 100000 100000 255\n" + bytes(100)),
        (".ppm", b"P3 100000 100000 255\n 1 2 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_headers_of_10_gigapixels(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    for reader in ("header", "image"):
        assert "allocate" not in refusal(reader, path)


@pytest.mark.parametrize(
    ("suffix", "data"), [(".jpg", jpeg(30_000)), (".png", png(30_000, 30_000)), (".tif", tiff(30_000))]
)
def test_headers_of_a_gigapixel(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    for reader in ("header", "image"):
        assert "allocate" not in refusal(reader, path)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_png_with_a_chunk_that_unpacks_to_100_mb(tmp_path: Path, kind: bytes) -> None:
    between = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    chunk = png_chunk(kind, b"name" + between + zlib.compress(bytes(100 << 20)))
    path = tmp_path / "a.png"
    path.write_bytes(png(600, 500, chunk))
    for read in (read_image_size, read_image, lambda path: image_notes(path, as_stored=False)):
        with in_time():
            answer(lambda: read(path), path)  # noqa: B023


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    for suffix, data in ((".png", SAMPLES[".png"][3]), (".webp", SAMPLES[".webp"][2]), (".png", encoded("gif"))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        assert read_image_size(path).displayed == read_image(path).shape[:2] == (24, 34)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["nothing", "empty", "folder", "loop", "dangling", "pipe", "device", "locked"])
def test_what_is_no_file(tmp_path: Path, reader: str, kind: str) -> None:
    """Opening a pipe blocks until there is a writer, and /dev/zero has no end."""
    path = tmp_path / "a.x"
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "b.x")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "locked":
        path.write_bytes(b"0 0.5 0.5 0.5 0.5")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("root reads everything")
    if reader == "yolo" and kind == "empty":
        assert READERS[reader](path) == LabelFile()
    else:
        refusal(reader, path)
