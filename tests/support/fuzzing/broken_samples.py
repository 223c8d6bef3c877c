"""Build data sets, with more than a hundred ways to break one of each label format."""

import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml
from PIL import Image

from tests.conftest import CLASSES
from utils.cli.options import LABEL_TYPES
from utils.data_tools.check import DataCheck, Problem, check_data
from utils.labels.data_config import load_data_config

SIZE = (96, 128)  # height, width
GOOD = (10, 10, 40, 40)  # Pascal VOC's corners
GOOD_BOX = (9, 9, 40, 40)  # the same in the convention of utils/labels/boxes.py
VOC, YOLO, COCO = LABEL_TYPES
SPLITS = ("train", "valid")
REED, PINK = "reed", "pink"  # classes that CLASSES lacks


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Random image, (H, W, 3) uint8, with blots of all colors; all are different."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC)


def voc(*objects: tuple, size: tuple | None = SIZE) -> str:
    """The text of a label file with objects (name, x1, y1, x2, y2)."""
    text = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    for name, *box in objects:
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
        text += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation>{text}</annotation>"


def corners(box: tuple) -> tuple[float, ...]:
    """Convert VOC corners to the convention of utils/labels/boxes.py; reversed ones stay reversed."""
    x1, y1, x2, y2 = map(float, box)
    (x1, x2), (y1, y2) = ((a - 1, b) if a < b else (a, b - 1) if a > b else (a, b) for a, b in ((x1, x2), (y1, y2)))
    return x1, y1, x2, y2


def yolo(*objects: tuple, size: tuple[int, int] = SIZE) -> str:
    """The text of a YOLO file with the same objects."""
    rows = []
    for name, *box in objects:
        x1, y1, x2, y2 = corners(box)
        numbers = ((x1 + x2) / 2 / size[1], (y1 + y2) / 2 / size[0], (x2 - x1) / size[1], (y2 - y1) / size[0])
        rows.append(f"{number_of(name) - 1} {' '.join(map(repr, numbers))}\n")
    return "".join(rows)


def number_of(name: str) -> int:
    """Number of a class in YOLO and COCO files."""
    return [*CLASSES, *"456", REED, PINK].index(name)


class Folder:
    """Builder of a data set: train/ and valid/ with images/ and labels/."""

    def __init__(self, root: Path, label_type: str = VOC) -> None:
        self.root, self.label_type, self.seed = root, label_type, 0
        keys = {f"{s.upper()}_DIR_{k.upper()}": str(root / s / k) for s in SPLITS for k in ("images", "labels")}
        for folder in keys.values():
            Path(folder).mkdir(parents=True)
        self.yaml = root / "data.yaml"
        self.rewrite(CLASSES=CLASSES, **keys)
        categories = [{"id": number_of(name), "name": name} for name in (*CLASSES[1:], REED, PINK)]
        self.coco = {split: {"images": [], "annotations": [], "categories": list(categories)} for split in SPLITS}

    def rewrite(self, **changes: object) -> None:
        old = yaml.safe_load(self.yaml.read_text()) if self.yaml.is_file() else {}
        self.yaml.write_text(yaml.safe_dump({k: v for k, v in {**old, **changes}.items() if v is not None}))

    def image(self, name: str, split: str = "train", size: tuple[int, int] = SIZE, **how: object) -> Path:
        """Save a new random image, converted to `mode`."""
        self.seed += 1
        path = self.root / split / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(self.seed, size)).convert(how.pop("mode", "RGB")).save(path, **how)
        return path

    def label(self, name: str, text: str | bytes | None = None, split: str = "train") -> Path:
        """Write a label file, without text a Pascal VOC file with a good box."""
        path = self.root / split / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = voc(("red", *GOOD)) if text is None else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
        return path

    def labels(self, image: str, *objects: tuple, split: str = "train", size: tuple | None = SIZE) -> None:
        """Write the labels of an image in the data set's format: a good box and these objects, with VOC corners."""
        objects, start = (("red", *GOOD), *objects), image.rpartition(".")[0]
        if self.label_type == VOC:
            self.label(f"{start}.xml", voc(*objects, size=size), split)
        elif self.label_type == YOLO:
            self.label(f"{start}.txt", yolo(*objects, size=size or SIZE), split)
        else:
            self.entry(image, *({"category_id": number_of(name), "bbox": box} for name, *box in objects), split=split)
            self.coco[split]["images"][-1] |= dict(zip(("height", "width"), size, strict=True)) if size else {}

    def entry(self, image: str, *annotations: dict, split: str = "train", **about: object) -> None:
        """Add an image and annotations to the COCO json; four numbers are VOC corners, a `raw` bbox is unchanged."""
        content = self.coco[split]
        content["images"].append({"id": len(content["images"]) + 1, "file_name": image, **about})
        for changes in annotations:
            entry = {"image_id": content["images"][-1]["id"], "category_id": 1, "bbox": GOOD, **changes}
            x1, y1, x2, y2 = corners(entry["bbox"])
            entry["bbox"] = entry.pop("raw", [x1, y1, x2 - x1, y2 - y1])
            content["annotations"].append({"id": len(content["annotations"]) + 1, **entry})

    def sound(self, name: str, *objects: tuple, split: str = "train", labels: tuple | None = SIZE, **how) -> Path:
        """Save an image, and its labels with the size `labels`: a good box and these objects."""
        self.labels(name, *objects, split=split, size=labels)
        return self.image(name, split, **how)

    def pair(self, stem: str, *objects: tuple, split: str = "train", size: tuple[int, int] | None = SIZE) -> Path:
        """Save an intact JPEG with a good box and these objects."""
        return self.sound(f"{stem}.jpg", *objects, split=split, labels=size)

    def finish(self) -> None:
        """Write the COCO json files, if the format is COCO."""
        for split, content in self.coco.items() if self.label_type == COCO else ():
            path = self.root / f"{split}.json"
            path.write_text(json.dumps(content))
            self.rewrite(**{f"{split.upper()}_DIR_LABELS": str(path)})

    def check(self, label_type: str | None = None, **how: bool) -> DataCheck:
        self.finish()
        return check_data(load_data_config(self.yaml), label_type or self.label_type, **how)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def overwrite(path: Path, what: bytes, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(what)] = what
    path.write_bytes(data)


def spoil_pixels(path: Path) -> None:
    """Replace the compressed pixels of a PNG by random bytes, and keep its header and end."""
    overwrite(path, b"\xff" * 60, path.read_bytes().index(b"IDAT") + 4)


def spoil_tables(path: Path) -> None:
    """Damage the Huffman tables of a JPEG."""
    overwrite(path, b"\xff" * 16, path.read_bytes().index(b"\xff\xc4") + 5)


def resize_header(path: Path, size: tuple[int, int]) -> None:
    """Change height and width in the header of a PNG, with a correct checksum."""
    chunk = b"IHDR" + struct.pack(">II", *size[::-1]) + path.read_bytes()[24:29]
    overwrite(path, chunk + struct.pack(">I", zlib.crc32(chunk)), 12)


def deep(path: Path, *, gray: bool = False) -> None:
    pixels = picture(len(path.name)).astype(np.uint16) * 257
    cv2.imwrite(str(path), pixels[:, :, 0] if gray else pixels)


def save_again(path: Path, copy_path: Path, size: tuple[int, int] | None = None, **how: object) -> None:
    image = Image.open(path)
    (image.resize(size) if size else image).save(copy_path, **how)


def instead_of_image(folder: Folder, name: str, make: Callable[[Path], object]) -> None:
    """Labels of an image, and another file of its name."""
    path = folder.sound(name)
    path.unlink()
    make(path)


class Sample(NamedTuple):
    """A fault: how to break the data set, and the problem that must be reported."""

    spoil: Callable[[Folder], object]
    place: str  # what the name begins with; up to its first dot also those of the sample's images
    kind: str  # "": there is nothing to name
    words: str = ""
    boxes: int = 1  # that a training gets of its images
    kept: int | None = None  # boxes of it in a mended copy; None: as many
    decodes: bool = True  # no header tells that the image cannot be decoded

    def owns(self, name: str) -> bool:
        """Return True if an image or label file, or an image of the COCO json, belongs to the sample."""
        last, start = re.split(r"/|\.json: ", name)[-1], self.place.partition(".")[0]
        return last.startswith((f"{start}.", f"{start}_", self.place))

    def names(self, problem: Problem) -> bool:
        """Return True if it is the problem to report, for this sample or for the whole COCO json."""
        of_all = problem.path.endswith(".json") and problem.kind == ROW
        mine = of_all or any(map(self.owns, (problem.name or Path(problem.path).name, problem.detail)))
        return mine and problem.kind == self.kind and self.words in problem.detail

    def mended(self) -> int:
        """Boxes of the sample in a repaired copy."""
        return self.boxes if self.kept is None else self.kept


IMAGE, LABEL = "unreadable images", "unreadable label files"
ROW, PART = "invalid entries of label files", "partly invalid entries of label files"
COPY, NEAR = "duplicate images", "near-duplicate images"
LEAK, NEAR_LEAK = (
    "duplicate images across splits (leakage)",
    "near-duplicate images across splits (leakage)",
)
EXIF, DEEP, ALPHA = (
    "images that EXIF turns",
    "images of more than 8 bits a channel",
    "images with transparency or a palette",
)
CLASS, NUMBER = "label files with a class missing from CLASSES", "label files with a class number outside CLASSES"
NO_IMAGE, NO_LABELS = "labels without an image", "images without labels, used as images without objects"
NOT_LISTED = "images not listed in the COCO JSON file"
SHARED, SIZES = "images that share a label file", "wrong image sizes in label files"
NO_AREA, OUTSIDE, CLIPPED = "boxes without area", "boxes outside their image", "boxes that extend beyond their image"
NO_NUMBERS, REVERSED, TWICE = "boxes with NaN or infinite coordinates", "boxes with reversed corners", "duplicate boxes"

IMAGES: dict[str, Sample] = {
    "empty image": Sample(lambda f: f.pair("a").write_bytes(b""), "a.jpg", IMAGE, "", 0),
    "no image": Sample(lambda f: f.pair("b").write_bytes(b"<html>404"), "b.jpg", IMAGE, "not an image", 0),
    "cut off jpeg": Sample(lambda f: truncate(f.pair("c"), 900), "c.jpg", IMAGE, "cut off", 0),
    "cut off png": Sample(lambda f: truncate(f.sound("d.png"), 900), "d.png", IMAGE, "cut off", 0),
    "cut off bmp": Sample(lambda f: truncate(f.sound("da.bmp"), 9000), "da.bmp", IMAGE, "cut off", 0),
    "cut off tiff": Sample(lambda f: truncate(f.sound("db.tif"), 9000), "db.tif", IMAGE, "", 0),
    "cut off webp": Sample(lambda f: truncate(f.sound("dc.webp"), 500), "dc.webp", IMAGE, "", 0),
    "cut off ppm": Sample(lambda f: truncate(f.sound("dd.ppm"), 9000), "dd.ppm", IMAGE, "cut off", 0),
    "only a header": Sample(lambda f: truncate(f.sound("de.png"), 33), "de.png", IMAGE, "", 0),
    "spoilt pixels": Sample(
        lambda f: spoil_pixels(f.sound("e.png")), "e.png", IMAGE, "as an image", kept=0, decodes=False),
    "spoilt tables": Sample(lambda f: spoil_tables(f.sound("ea.jpg")), "ea.jpg", IMAGE, "", kept=0, decodes=False),
    "wrong checksum": Sample(lambda f: overwrite(f.sound("eb.png"), b"\0", 29), "eb.png", IMAGE, "", 0),
    "no size": Sample(lambda f: resize_header(f.sound("ec.png"), (0, 0)), "ec.png", IMAGE, "", 0),
    "absurd size": Sample(lambda f: resize_header(f.sound("ed.png"), (60000, 60000)), "ed.png", IMAGE, "", 0),
    "no labels": Sample(lambda f: f.image("j.jpg"), "j.jpg", NO_LABELS, "", 0),
    "a folder of that name": Sample(lambda f: instead_of_image(f, "ja.jpg", Path.mkdir), "ja.", NO_IMAGE, "", 0),
    "a link to nothing": Sample(
        lambda f: instead_of_image(f, "jb.jpg", lambda path: path.symlink_to("gone.jpg")), "jb.", NO_IMAGE, "", 0),
    "a pipe": Sample(lambda f: instead_of_image(f, "jc.jpg", os.mkfifo), "jc.", NO_IMAGE, "", 0),
    "exif sideways": Sample(
        lambda f: f.sound("z.jpg", labels=SIZE[::-1], exif=exif(6)), "z.jpg", EXIF, "6: boxes refer to the displayed"),
    "exif 180": Sample(lambda f: f.sound("z3.jpg", exif=exif(3)), "z3.jpg", EXIF, "orientation 3"),
    "exif in webp": Sample(
        lambda f: f.sound("z4.webp", labels=SIZE[::-1], exif=exif(8)), "z4.webp", EXIF, "orientation 8"),
    "exif of nothing": Sample(lambda f: f.sound("z5.jpg", exif=exif(1)), "z5.", ""),
    "exif of nonsense": Sample(lambda f: f.sound("z6.jpg", exif=exif(77)), "z6.", ""),
    "16 bits": Sample(lambda f: deep(f.sound("a1.png")), "a1.png", DEEP, "read as 8 bits"),
    "16 bits gray": Sample(lambda f: deep(f.sound("a2x.tif"), gray=True), "a2x.tif", DEEP, "8 bits"),
    "16 bits ppm": Sample(lambda f: deep(f.sound("a3xx.ppm")), "a3xx.ppm", DEEP, "8 bits"),
    "gray": Sample(lambda f: f.sound("a4.jpg", mode="L"), "a4.jpg", "gray images", "read as RGB"),
    "cmyk": Sample(lambda f: f.sound("a5.jpg", mode="CMYK"), "a5.jpg", "CMYK images", "read as RGB"),
    "rgba": Sample(lambda f: f.sound("a6.png", mode="RGBA"), "a6.png", ALPHA, "RGBA"),
    "palette": Sample(lambda f: f.sound("a7.png", mode="P"), "a7.png", ALPHA, "P, read as opaque RGB"),
    "animated": Sample(
        lambda f: f.sound("a8.webp", save_all=True, append_images=[Image.fromarray(picture(999))]),
        "a8.webp", "images of several frames", "2, the first is read"),
    "other format": Sample(
        lambda f: f.image("b1.gif"), "b1.gif", "image files of an unsupported format", "save it as", 0),
    "copy": Sample(lambda f: shutil.copy(f.pair("b2"), f.pair("b3")), "b3.jpg", COPY, "the same as b2.jpg", kept=0),
    "re-compressed": Sample(
        lambda f: save_again(f.pair("b4"), f.pair("b5"), quality=60), "b5.jpg", NEAR, "the same as b4.jpg"),
    "resized": Sample(
        lambda f: save_again(f.pair("b6"), f.pair("b7", size=(90, 120)), (120, 90)), "b7.jpg", NEAR,
        "the same as b6.jpg"),
    "leaked": Sample(
        lambda f: shutil.copy(f.pair("b8"), f.pair("b9", split="valid")), "b9.jpg", LEAK,
        "the same as b8.jpg of train"),
    "leaked as png": Sample(
        lambda f: save_again(f.pair("c1"), f.sound("c2.png", split="valid")), "c2.png", NEAR_LEAK,
        "the same as c1.jpg of train"),
    "cut off in a folder": Sample(lambda f: truncate(f.pair("n1/n2/deep"), 900), "deep.jpg", IMAGE, "cut off", 0),
    "jpeg called png": Sample(lambda f: f.sound("w1.png", format="JPEG"), "w1.", ""),
    "png called jpg": Sample(lambda f: f.sound("w2.jpg", format="PNG"), "w2.", ""),
    "suffix in capitals": Sample(lambda f: f.sound("w3.JPG"), "w3.", ""),
    "name with a space": Sample(lambda f: f.sound("w4 of.jpg"), "w4 of.", ""),
    "name of another script": Sample(lambda f: f.sound("wß漢字🦆.jpg"), "wß漢字🦆.", ""),
    "name with brackets": Sample(lambda f: f.sound("w5[1](*)?.jpg"), "w5[1](*)?.", ""),
    "name with dots": Sample(lambda f: f.sound("w6.v1.final.jpg"), "w6.", ""),
    "name with a new line": Sample(lambda f: f.sound("w7\n1.jpg"), "w7\n1.", ""),
    "name with quotes": Sample(lambda f: f.sound("w8'\"&<b>%s.jpg"), "w8'\"&<b>%s.", ""),
    "name with a dash": Sample(lambda f: f.sound("-w9.jpg"), "-w9.", ""),
    "name without end": Sample(lambda f: f.sound(f"wx{'x' * 200}.jpg"), "wxx", ""),
    "one pixel": Sample(lambda f: f.sound("wy.png", labels=(1, 1), size=(1, 1)), "wy.", OUTSIDE, "box 1", 0),
}  # fmt: skip

BOXES: dict[str, Sample] = {
    "reversed": Sample(
        lambda f: f.pair("p", ("red", 60, 60, 50, 50)), "p.", REVERSED, "box 2 (red 60 60 49 49)", 2),
    "no width": Sample(lambda f: f.pair("q", ("red", 9, 9, 9, 30)), "q.", NO_AREA, "box 2 (red 9 8 9 30)"),
    "a point": Sample(lambda f: f.pair("q2", ("red", 0, 0, 0, 0)), "q2.", NO_AREA, "box 2 (red 0 0 0 0)"),
    "far outside": Sample(lambda f: f.pair("r", ("red", 500, 9, 520, 20)), "r.", OUTSIDE, "box 2"),
    "half outside": Sample(lambda f: f.pair("s", ("red", 90, 9, 180, 20)), "s.", CLIPPED, "box 2", 2),
    "negative": Sample(lambda f: f.pair("s2", ("red", -40, 9, 20, 20)), "s2.", CLIPPED, "box 2", 2),
    "larger than the image": Sample(lambda f: f.pair("s3", ("red", -40, -9, 999, 999)), "s3.", CLIPPED, "box 2", 2),
    "nan": Sample(lambda f: f.pair("t", ("red", "nan", 9, 20, 20)), "t.", NO_NUMBERS, "box 2 (red nan"),
    "infinite": Sample(lambda f: f.pair("t2", ("red", 1, 9, "inf", 20)), "t2.", NO_NUMBERS, "box 2"),
    "too large a number": Sample(lambda f: f.pair("t3", ("red", 1, 9, "1e999", 20)), "t3.", NO_NUMBERS, "box 2"),
    "twice": Sample(
        lambda f: f.pair("u", ("red", 10, 10.4, 40, 40)), "u.", TWICE, "2 is equal to box 1", 2, kept=1),
    "thrice": Sample(
        lambda f: f.pair("u2", *2 * [("red", *GOOD)]), "u2.", TWICE, "box 3 is equal to box 1", 3, kept=1),
    "the same of another class": Sample(lambda f: f.pair("u3", ("green", *GOOD)), "u3.", "", "", 2),
    "up to the border": Sample(lambda f: f.pair("u4", ("green", 1, 1, 128, 96)), "u4.", "", "", 2),
    "a pixel over the border": Sample(lambda f: f.pair("u5", ("green", 0, 0, 129, 97)), "u5.", "", "", 2),
}  # fmt: skip

# With a size in them, VOC and COCO.
SIZED: dict[str, Sample] = {
    **{f"exif {n} as stored": Sample(
        lambda f, n=n: f.sound(f"y{n}.jpg", exif=exif(n)), f"y{n}.jpg", EXIF,
        f"orientation {n}: boxes refer to the stored")
       for n in (5, 6, 7, 8)},
    "exif in png as stored": Sample(
        lambda f: f.sound("z2.png", exif=exif(8)), "z2.png", EXIF, "8: boxes refer to the stored"),
    "exif in webp as stored": Sample(
        lambda f: f.sound("z7.webp", exif=exif(5)), "z7.webp", EXIF, "refer to the stored image"),
    "other size": Sample(lambda f: f.pair("n", size=(96, 100)), "n.", SIZES, "100x96, n.jpg is 128x96"),
    "other size in a folder": Sample(
        lambda f: f.pair("n3/nn", size=(96, 100)), "nn.", SIZES, "100x96, n3/nn.jpg is 128x96"),
    "no size in the labels": Sample(lambda f: f.pair("n4", size=None), "n4.", ""),
    "size of zero": Sample(lambda f: f.pair("n5", size=(0, 0)), "n5.", ""),
    "unknown class": Sample(
        lambda f: f.pair("o", *2 * [(REED, *GOOD)]), "o.", CLASS, "2 boxes of 'reed'; did you mean 'red'?"),
}  # fmt: skip

# With a label file for each image, Pascal VOC and YOLO.
FILES: dict[str, Sample] = {
    "one stem, two suffixes": Sample(
        lambda f: (f.pair("l"), f.image("l.png")), "l.png", SHARED, " also belongs to ", 2),
}  # fmt: skip

PASCAL: dict[str, Sample] = {
    "empty label file": Sample(lambda f: (f.pair("f"), f.label("f.xml", "")), "f.xml", LABEL, "not valid XML", 0),
    "half a label file": Sample(
        lambda f: (f.pair("g"), f.label("g.xml", "<annotation>\n<size>")), "g.xml", LABEL, "line 2:", 0),
    "entities": Sample(
        lambda f: (f.pair("h"), f.label("h.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')),
        "h.xml", LABEL, "DOCTYPE", 0),
    "image and labels broken": Sample(
        lambda f: (f.pair("i").write_bytes(b""), f.label("i.xml", "")), "i.xml", LABEL, "not valid XML", 0),
    "no image for labels": Sample(lambda f: f.label("k.xml"), "k.xml", NO_IMAGE, "", 0),
    "two label files": Sample(
        lambda f: (f.pair("m"), f.label("m.XML")), "m.", "second label files of an image", "only the other"),
    "no corner": Sample(lambda f: f.pair("v", ("red", 1, 2, 3)), "v.xml", ROW, "object 2 (red) has no bndbox of four"),
    "words for corners": Sample(
        lambda f: f.pair("w", ("red", "a", 2, 3, 4)), "w.xml", ROW, "no bndbox of four numbers"),
    "no name": Sample(lambda f: f.pair("x", ("", 1, 2, 30, 40)), "x.xml", ROW, "object 2 has no name"),
    "no box at all": Sample(
        lambda f: (f.pair("xa"), f.label("xa.xml", voc(("red", *GOOD), ("red",)))), "xa.xml", ROW,
        "object 2 (red) has no bndbox"),
    "size in words": Sample(
        lambda f: f.pair("y", size=("big", "small")), "y.xml", PART, "size big x small"),
    "wrong encoding": Sample(
        lambda f: (f.pair("xb"), f.label("xb.xml", voc(("rot\xe9", *GOOD)).encode("latin-1"))), "xb.xml", LABEL, "", 0),
    "unknown encoding": Sample(
        lambda f: (f.pair("xc"), f.label("xc.xml", '<?xml version="1.0" encoding="klingon"?>' + voc())),
        "xc.xml", LABEL, "", 0),
    "utf-16": Sample(
        lambda f: (f.pair("xd"), f.label("xd.xml", voc(("red", *GOOD)).encode("utf-16"))), "xd.", ""),
    "byte order mark": Sample(
        lambda f: (f.pair("xe"), f.label("xe.xml", voc(("red", *GOOD)).encode("utf-8-sig"))), "xe.", ""),
    "another xml": Sample(lambda f: (f.pair("xf"), f.label("xf.xml", "<svg/>")), "xf.xml", LABEL, "<svg>", 0),
    "binary labels": Sample(lambda f: (f.pair("xg"), f.label("xg.xml", bytes(range(256)))), "xg.xml", LABEL, "", 0),
    "labels that are a folder": Sample(
        lambda f: (f.image("xh.jpg"), (f.root / "train/labels/xh.xml").mkdir()), "xh.jpg", NO_LABELS, "", 0),
    "labels in a folder": Sample(lambda f: f.pair("n5/xi", ("red", 9, 9, 9, 9)), "xi.xml", NO_AREA, "box 2"),
    "spaces around a name": Sample(lambda f: f.pair("xj", ("\n green ", 50, 50, 90, 90)), "xj.", "", "", 2),
    "no objects": Sample(lambda f: (f.pair("xl"), f.label("xl.xml", voc())), "xl.", "", "", 0),
    "one pixel wide": Sample(lambda f: f.pair("xm", ("red", 10, 10, 11, 11)), "xm.", "", "", 2),
    "huge": Sample(
        lambda f: f.sound("a9.png", labels=None, mode="1", size=(7100, 7100)), "a9.png", "images over 50 megapixels",
        "7100x7100"),
}  # fmt: skip


def _rows(stem: str, rows: str | bytes) -> Callable[[Folder], object]:
    """Return a function that makes an image whose YOLO file has a good row and these."""
    good = yolo(("red", *GOOD))
    return lambda f: (f.pair(stem), f.label(f"{stem}.txt", good + rows if isinstance(rows, str) else rows))


DARKNET: dict[str, Sample] = {
    "copy in another folder": Sample(
        lambda f: shutil.copy(f.pair("n1/same"), f.pair("n2/same")), "same.jpg", COPY, "the same as n1/same.jpg", 2,
        kept=1),
    "class number too high": Sample(_rows("o", "7 .5 .5 .1 .1\n"), "o.", NUMBER, "1 box of class 7"),
    "class number of NC": Sample(_rows("o2", "2 .5 .5 .1 .1\n"), "o2.", NUMBER, "1 box of class 2"),
    "negative class": Sample(_rows("o3", "-1 .5 .5 .1 .1\n"), "o3.", ROW, "line 2 has class -1"),
    "half a class": Sample(_rows("o4", "1.5 .5 .5 .1 .1\n"), "o4.", ROW, "line 2 has class 1.5"),
    "class with a point": Sample(_rows("o5", "1.0 .5 .5 .1 .1\n"), "o5.", "", "", 2),
    "class by name": Sample(_rows("o6", "red .5 .5 .1 .1\n"), "o6.", ROW, "line 2 is not all numbers"),
    "infinite class": Sample(_rows("o7", "inf .5 .5 .1 .1\n"), "o7.", ROW, "line 2 has class inf"),
    "three columns": Sample(_rows("v", "0 .5 .5 .1\n"), "v.", ROW, "line 2 has 4 numbers, expected 5"),
    "one column": Sample(_rows("v2", "0\n"), "v2.", ROW, "line 2 has 1 numbers, expected 5"),
    "seven numbers": Sample(_rows("v3", "0 .1 .1 .2 .1 .2 .2 .7\n"), "v3.", ROW, "line 2 has 8 numbers, expected 5"),
    "commas": Sample(_rows("v4", "0, .5, .5, .1, .1\n"), "v4.", ROW, "line 2 is not all numbers"),
    "confidence": Sample(_rows("v5", "1 .5 .5 .1 .1 .9\n"), "v5.", PART, "line 2 has a confidence", 2),
    "polygon": Sample(_rows("v6", "1 .5 .5 .9 .5 .9 .9 .5 .9\n"), "v6.", "", "", 2),
    "blank lines": Sample(_rows("v7", "\n  \n1 .5 .5 .1 .1\n\n"), "v7.", "", "", 2),
    "windows lines": Sample(_rows("v8", "1 .5 .5 .1 .1\r\n"), "v8.", "", "", 2),
    "utf-16": Sample(_rows("v9", yolo(("red", *GOOD)).encode("utf-16")), "v9.", ""),
    "pixels": Sample(_rows("va", "1 64 48 20 20\n"), "va.", OUTSIDE, "box 2"),
    "binary labels": Sample(_rows("vb", b"\x89PNG\0\0"), "vb.", ROW, "line 1 is not all numbers", 0),
    "empty label file": Sample(_rows("vc", b""), "vc.", "", "", 0),
    "no image for labels": Sample(lambda f: f.label("k.txt", yolo(("red", *GOOD))), "k.txt", NO_IMAGE, "", 0),
    "two label files": Sample(
        lambda f: (f.pair("m"), f.label("m.TXT", "")), "m.", "second label files of an image", "",
        0, kept=0),
    "one pixel wide": Sample(lambda f: f.pair("xm", ("red", 10, 10, 10.5, 11)), "xm.", "", "", 2),
}  # fmt: skip


def _json(image: str, *annotations: dict, **about: object) -> Callable[[Folder], object]:
    """Return a function that adds an image with a good box and these annotations to the COCO json."""
    return lambda f: (f.image(image), f.entry(image, {}, *annotations, **about))


def _twice(folder: Folder) -> None:
    folder.pair("ag")
    folder.entry("ag.jpg", {"bbox": (50, 50, 60, 60)})


BOX2 = {"bbox": (50, 50, 90, 90)}
JSON: dict[str, Sample] = {
    "unknown category": Sample(_json("ca.jpg", {"category_id": 99}), "ca.", CLASS, "1 box of category 99"),
    "no category": Sample(_json("cb.jpg", {"category_id": None}), "cb.", CLASS, "1 box of category None"),
    "category that CLASSES lacks": Sample(
        _json("cc.jpg", {"category_id": number_of(PINK)}), "cc.", CLASS, "1 box of 'pink'"),
    "box in words": Sample(_json("cd.jpg", {"raw": ["1", "2", "3", "4"]}), "cd.", ROW, "has no bbox of four numbers"),
    "box as text": Sample(_json("ce.jpg", {"raw": "1 2 3 4"}), "ce.", ROW, "has no bbox of four numbers"),
    "box of three": Sample(_json("cf.jpg", {"raw": [1, 2, 3]}), "cf.", ROW, "has no bbox of four numbers"),
    "no box": Sample(_json("cg.jpg", {"raw": None}), "cg.", ROW, "has no bbox of four numbers"),
    "true for a number": Sample(_json("ch.jpg", {"raw": [True, 2, 30, 40]}), "ch.", ROW, "has no bbox of four"),
    "unknown image": Sample(_json("ci.jpg", {"image_id": 99999}), "ci.", ROW, "is of no image in the file"),
    "no image id": Sample(_json("cj.jpg", {"image_id": None}), "cj.", ROW, "is of no image in the file"),
    "crowd": Sample(_json("ck.jpg", {**BOX2, "iscrowd": 1}), "ck.", "", "", 2),
    "ids as text": Sample(_json("cl.jpg", {**BOX2, "image_id": "x"}, id="x"), "cl.", "", "", 2),
    "ids with gaps": Sample(_json("cm.jpg", id=77777), "cm.", ""),
    "polygon": Sample(_json("cn.jpg", {**BOX2, "segmentation": [[1, 2, 3]]}), "cn.", "", "", 2),
    "image entry twice": Sample(_twice, "ag.", ROW, "is ag.jpg again"),
    "no file name": Sample(lambda f: f.entry(None), "cp.", ROW, "has no file_name", 0),
    "path before the name": Sample(
        lambda f: (f.image("cq.jpg"), f.entry("C:\\data\\cq.jpg", {})), "cq.", ""),
    "entry without image": Sample(lambda f: f.entry("cr.jpg", {}), "cr.", NO_IMAGE, "cr.jpg", 0),
    "size in words": Sample(_json("cs.jpg", height="96", width="128"), "cs.", ""),
    "negative sides": Sample(_json("ct.jpg", {"raw": [60, 60, -11, -11]}), "ct.", REVERSED, "box 2", 2),
    "too large a number": Sample(_json("cu.jpg", {"raw": [1, 1, 10**400, 5]}), "cu.", NO_NUMBERS, "box 2"),
    "no objects": Sample(lambda f: (f.image("cv.jpg"), f.entry("cv.jpg")), "cv.", "", "", 0),
    "one pixel wide": Sample(_json("xm.jpg", {"raw": [10, 10, 0.5, 1]}), "xm.", "", "", 2),
}  # fmt: skip

SAMPLES: Mapping[str, Sample] = {**IMAGES, **BOXES, **SIZED, **FILES, **PASCAL}  # of Pascal VOC
_NOT_LISTED = IMAGES["no labels"]._replace(kind=NOT_LISTED)
OF_TYPE: Mapping[str, Mapping[str, Sample]] = {
    VOC: SAMPLES,
    YOLO: {**IMAGES, **BOXES, **FILES, **DARKNET},
    COCO: {**IMAGES, **BOXES, **SIZED, **JSON, "no labels": _NOT_LISTED},
}


def broken_folder(root: Path, label_type: str) -> Folder:
    """Make a data set with all samples of a format, and four intact images per split."""
    folder = Folder(root, label_type)
    for split in SPLITS:
        for i in range(4):
            folder.pair(f"good_{split}_{i}", ("green", 50, 50, 90, 80), split=split)
    for sample in OF_TYPE[label_type].values():
        sample.spoil(folder)
    folder.finish()
    return folder
