import io
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.errors import DataError
from utils.images.image_files import can_write, list_images, load_simplejpeg, read_image, read_image_size, write_image
from utils.images.structure import CUT_OFF, SCANS, jpeg_header

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (40, 60, 3), np.uint8), (9, 9), 3)


def save(path: Path, orientation: int | None = None) -> Path:
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.fromarray(PICTURE).save(path, exif=exif, quality=98)
    return path


def test_read_is_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), red)


def test_write_and_read_give_the_same_pixels(tmp_path: Path) -> None:
    write_image(tmp_path / "ü [1].png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "ü [1].png"), PICTURE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_gray_palette_and_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_images_do_not_go_black(tmp_path: Path, suffix: str) -> None:
    """Fault of the predecessor: 16-bit images went black."""
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), PICTURE[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path), PICTURE)
    assert read_image_size(path).displayed == (40, 60)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_header_says_the_shape_that_reading_gives(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save(tmp_path / f"a{suffix}", orientation)
    header = read_image_size(path)
    assert header.stored == (40, 60) == read_image(path, as_stored=True).shape[:2]
    assert header.displayed == read_image(path).shape[:2]
    assert (header.displayed == (60, 40)) == (orientation >= 5)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_of_a_tiff_header_says_the_shape_that_reading_gives(
    tmp_path: Path, bits: int, orientation: int
) -> None:
    """OpenCV applies the orientation of a TIFF even with IMREAD_IGNORE_ORIENTATION."""
    gray = PICTURE[..., 0].astype(f"uint{bits}")
    Image.fromarray(gray).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    header = read_image_size(tmp_path / "a.tif")
    assert header.stored == read_image(tmp_path / "a.tif", as_stored=True).shape[:2]
    assert header.displayed == read_image(tmp_path / "a.tif").shape[:2]


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def test_exif_rotation_that_only_xmp_has_turns_neither_header_nor_image(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", xmp=XMP)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get(274) == 6  # as Pillow has it
    assert read_image_size(tmp_path / "a.jpg").displayed == read_image(tmp_path / "a.jpg").shape[:2] == (40, 60)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("exif", [b"II*\0", b"II+\0\x08\0\0\0" + bytes(8), b"garbage", b""], ids=repr)
def test_damaged_exif_is_no_reason_to_refuse_an_image(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (30, 20), (90, 10, 200)).save(path, exif=b"Exif\0\0" + exif)
    assert read_image_size(path).displayed == read_image(path).shape[:2] == (20, 30)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_exif_rotation_after_the_pixels_of_a_png_is_seen(tmp_path: Path, prefix: bytes) -> None:
    """exiftool may write EXIF data after the pixels; libpng drops it with the prefix for JPEG."""
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.png")
    data, end = path.read_bytes(), 12
    path.write_bytes(data[:-end] + png_chunk(b"eXIf", prefix + exif.tobytes().removeprefix(b"Exif\0\0")) + data[-end:])
    assert read_image_size(path).displayed == read_image(path).shape[:2] == ((40, 60) if prefix else (60, 40))


def test_the_header_is_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's getexif() decodes a whole PNG."""
    path = save(tmp_path / "a.png")

    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert read_image_size(path).displayed == (40, 60)


def test_a_long_thin_image_is_read(tmp_path: Path) -> None:
    """Fault of the predecessor: a 2000 x 1 image crashed."""
    Image.new("RGB", (2000, 1)).save(tmp_path / "a.png")
    assert read_image_size(tmp_path / "a.png").displayed == (1, 2000)


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    """Other libraries, such as SAHI, remove Pillow's limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    Image.new("1", (14_000, 13_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image .*182000000 pixels\) exceeds limit"):
        read_image_size(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: too many pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("times", [1, 2])
def test_a_jpeg_that_says_to_be_huge_is_not_decoded(tmp_path: Path, times: int) -> None:
    path = save(tmp_path / "a.jpg")
    data = path.read_bytes()
    frame = data.index(b"\xff\xc0")
    huge = data[frame : frame + 5] + struct.pack(">HH", 60_000, 60_000) + data[frame + 9 : frame + 19]
    path.write_bytes(data[:frame] + huge + (data[frame + 19 :] if times == 1 else data[frame:]))
    with pytest.raises(DataError, match=r"a\.jpg: too many pixels"):
        read_image(path)


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    restarts=st.integers(0, 3),
    keep_rgb=st.booleans(),
    orientations=st.lists(st.integers(0, 9), max_size=2),
    as_stored=st.booleans(),
)
def test_a_jpeg_has_the_pixels_that_opencv_gives(
    tmp_path_factory, shape, mode, quality, subsampling, progressive, restarts, keep_rgb, orientations, as_stored
) -> None:
    is_rgb = keep_rgb and mode == "RGB"  # without chroma, which JPEG otherwise has
    pixels = cv2.resize(PICTURE, shape)
    written = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(
        written,
        "JPEG",
        quality=quality,
        subsampling=0 if is_rgb else subsampling,
        progressive=progressive,
        restart_marker_blocks=restarts,
        keep_rgb=is_rgb,
    )
    data = written.getvalue()
    for orientation in orientations:
        data = with_exif(data, orientation)
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path, as_stored=as_stored), by_opencv(data, as_stored=as_stored))


@pytest.mark.parametrize(
    "spoil", [lambda data, at: data[:at] + b"\0\0" + data[at:], lambda data, at: data[:-40] + data[-2:]]
)
def test_a_jpeg_with_faults_that_opencv_forgives_is_read(tmp_path: Path, spoil) -> None:
    path = save(tmp_path / "a.jpg")
    data = path.read_bytes()
    data = spoil(data, data.index(b"\xff\xc0"))
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path), by_opencv(data))


@pytest.mark.parametrize(
    "filling",
    [
        pytest.param(b"\0" * 10**6, id="no segments at all"),
        pytest.param(b"\xff" * 10**6, id="markers that never come"),
        pytest.param(b"\xff\xd0" * 10**6, id="markers without content"),
        pytest.param(b"\xff\xe0\0\0" * 10**6, id="segments without a length"),
        pytest.param(b"\xff\xe0\0\2" * 10**6, id="empty segments"),
    ],
)
def test_a_jpeg_whose_header_does_not_end_is_given_up_before_a_library_walks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: bytes
) -> None:
    """Pillow takes half a minute for 30 MB."""
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(cv2, "imdecode", None)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + filling)
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"a\.jpg: the image is cut off"):
            read(tmp_path / "a.jpg")


def test_a_jpeg_of_many_scans_is_not_decoded(tmp_path: Path) -> None:
    """A scan of 48 megapixels takes 95 bytes, and 0.17 s to decode."""
    written = io.BytesIO()
    Image.fromarray(PICTURE[..., 0]).save(written, "JPEG", progressive=True)
    data = written.getvalue()
    table = data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda"))
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:-2] + data[table:-2] * 50 + data[-2:])
    assert read_image_size(path).stored == read_image(path).shape[:2]
    path.write_bytes(data[:-2] + data[table:-2] * 100 + data[-2:])
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"a\.jpg: a JPEG of more than 100 scans"):
            read(path)


def test_scans_are_counted_where_a_decoder_goes_through_them() -> None:
    written = io.BytesIO()
    Image.fromarray(PICTURE).save(written, "JPEG")
    data = written.getvalue()
    scan = data.index(b"\xff\xda")
    assert data[scan + 4] == 3
    one_of_three = data[: scan + 4] + b"\1" + data[scan + 5 :]
    for first, fault in ((data, ""), (one_of_three, SCANS)):
        assert jpeg_header(first).fault == ""
        assert jpeg_header(first + data[scan:] * 101).fault == fault


def test_a_png_of_endless_chunks_is_given_up_before_a_library_walks_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    data = path.read_bytes()
    empty = struct.pack(">I", 0) + b"aaAa" + struct.pack(">I", zlib.crc32(b"aaAa"))
    path.write_bytes(data[:33] + empty * 1000 + data[33:])
    assert read_image_size(path).stored == read_image(path).shape[:2]
    path.write_bytes(data[:33] + empty * 100_000 + data[33:])
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"a\.png: the image is cut off"):
            read(path)


def test_a_format_that_opencv_alone_knows_is_not_decoded(tmp_path: Path) -> None:
    """A Radiance file of 12 MB named as a JPEG took 3 GB to decode."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + b"\x80\x80\x80\x80")
    assert cv2.imread(str(path)) is not None
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image"):
            read(path)


@pytest.mark.parametrize(("segments", "is_cut_off"), [(9_000, False), (11_000, True)])
def test_a_jpeg_has_a_bounded_number_of_segments(segments: int, is_cut_off: bool) -> None:
    written = io.BytesIO()
    Image.fromarray(PICTURE).save(written, "JPEG")
    data = written.getvalue()
    assert jpeg_header(data[:2] + b"\xff\xe0\0\2" * segments + data[2:]).fault == (CUT_OFF if is_cut_off else "")


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    """Insert EXIF data at the start of the file."""
    exif = Image.Exif()
    exif[274] = orientation
    content = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def by_opencv(data: bytes, *, as_stored: bool = False) -> np.ndarray:
    flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"b\.jpg: no such file"):
            read(tmp_path / "b.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm", ".tif", ".webp"])
@pytest.mark.parametrize("left", [0.5, 0.99])
def test_truncated_images_are_refused_and_named(tmp_path: Path, capfd, suffix: str, left: float) -> None:
    """Faults of the predecessor: corrupt images raised without a name, truncated ones trained gray."""
    path = save(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=rf"a\{suffix}: .*(cut off|cannot be read)") as error:
            read(path)
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # OpenCV and libpng have nothing to add


@pytest.mark.parametrize("header", [12, 40])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_bmp_of_any_header_and_depth_is_whole(tmp_path: Path, header: int, mode: str) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(PICTURE).convert(mode).save(path)
    data = path.read_bytes()
    if header == 12:  # OS/2's, with palette entries of 3 bytes
        width, height, planes, bits = struct.unpack_from("<iiHH", data, 18)
        colors = b"".join(data[i : i + 3] for i in range(54, struct.unpack_from("<I", data, 10)[0], 4))
        pixels = data[struct.unpack_from("<I", data, 10)[0] :]
        core = struct.pack("<IHHHH", 12, width, height, planes, bits)
        data = (
            struct.pack("<2sIII", b"BM", 26 + len(colors) + len(pixels), 0, 26 + len(colors)) + core + colors + pixels
        )
        path.write_bytes(data)
    assert read_image_size(path).displayed == read_image(path).shape[:2] == (40, 60)
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match="cut off"):
        read_image_size(path)


@pytest.mark.parametrize(("kind", "largest", "samples"), [("P5", 255, 1), ("P6", 255, 3), ("P6", 65535, 6)])
def test_ppm_with_comments_is_whole(tmp_path: Path, kind: str, largest: int, samples: int) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(f"{kind}\n# made by hand\n60 # wide\n40\n{largest}\n".encode() + bytes(60 * 40 * samples))
    assert read_image_size(path).displayed == (40, 60)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut off"):
        read_image_size(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm"])
@pytest.mark.parametrize("tail", [b"camera data" * 100, bytes(200_000)], ids=["note", "motion photo"])
def test_bytes_after_the_end_of_an_image_are_no_fault(tmp_path: Path, suffix: str, tail: bytes) -> None:
    path = save(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes() + tail)
    assert read_image_size(path).displayed == (40, 60)
    assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_not_whole_because_its_thumbnail_is(tmp_path: Path, progressive: bool) -> None:
    """Fault of the predecessor: truncated images trained gray."""
    thumbnail = io.BytesIO()
    Image.fromarray(PICTURE).resize((16, 12)).save(thumbnail, "jpeg")
    exif = Image.Exif()
    exif[270] = "x"
    exif = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0") + thumbnail.getvalue()
    path = tmp_path / "a.jpg"
    Image.fromarray(PICTURE).save(path, exif=exif, progressive=progressive)
    assert read_image_size(path).displayed == (40, 60)
    data = path.read_bytes()
    for length in (len(data) - 2, len(data) - 300, data.index(thumbnail.getvalue()) + len(thumbnail.getvalue()) + 30):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.jpg"):
            read_image_size(path)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    for read in (read_image_size, read_image):
        with pytest.raises(DataError, match=r"a\.jpg: cannot be read"):
            read(tmp_path / "a.jpg")


def test_what_cannot_be_written_is_known_and_named(tmp_path: Path, capfd) -> None:
    assert [s for s in (".jpg", ".JPG", ".png", "", ".jfif", ".pgm", ".ÿ") if can_write(s)] == [".jpg", ".JPG", ".png"]
    with pytest.raises(OSError, match=r"a\.jfif: OpenCV cannot write this image"):
        write_image(tmp_path / "a.jfif", PICTURE)
    assert capfd.readouterr() == ("", "")


def test_list_is_sorted_and_counts_no_file_twice(tmp_path: Path) -> None:
    """Fault of the predecessor: on Windows *.jpg and *.JPG counted every image twice."""
    for name in ("b.JPG", "a.jpg", "c.png", "notes.txt", "d.jpg.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.JPG", "c.png"]


def test_without_simplejpeg_opencv_gives_the_same_pixels_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jpg"
    write_image(path, np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    expected = read_image(path)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    load_simplejpeg.cache_clear()
    try:
        for _ in range(2):
            np.testing.assert_array_equal(read_image(path), expected)
    finally:
        load_simplejpeg.cache_clear()
    (record,) = caplog.records
    assert record.getMessage().startswith("simplejpeg is missing")
    assert record.getMessage().endswith("pip install simplejpeg")
