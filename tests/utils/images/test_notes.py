from pathlib import Path

import pytest
from PIL import Image

from utils.images.notes import ALPHA, EXIF, FRAMES, image_notes


@pytest.mark.parametrize("as_stored", [True, False])
def test_exif_says_what_the_boxes_mean(tmp_path: Path, as_stored: bool) -> None:
    tags = Image.Exif()
    tags[274] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=tags)
    frame = "the stored image, which is not rotated" if as_stored else "the displayed image, which is rotated"
    expected = [(EXIF, f"orientation 6: boxes refer to {frame}")]
    assert image_notes(tmp_path / "a.jpg", as_stored=as_stored) == expected


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm"])
def test_ordinary_images_have_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (8, 6)).save(path)
    assert image_notes(path, as_stored=False) == []


def test_a_transparent_color_counts(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", transparency=(0, 0, 0))
    assert image_notes(tmp_path / "a.png", as_stored=False) == [(ALPHA, "RGB, read as opaque RGB")]


@pytest.mark.parametrize(("frames", "said"), [(2, "2"), (999, "999"), (1001, "1,000 or more")])
def test_frames_of_a_tiff(tmp_path: Path, frames: int, said: str) -> None:
    """Pillow needs quadratic time to count frames: half a minute for 40,000 in 5 MB."""
    path = tmp_path / "a.tif"
    Image.new("RGB", (2, 2)).save(path, save_all=True, append_images=[Image.new("RGB", (2, 2))] * (frames - 1))
    assert image_notes(path, as_stored=False) == [(FRAMES, f"{said}, the first is read")]


def test_what_is_no_image_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"?")
    assert image_notes(tmp_path / "a.png", as_stored=False) == []
