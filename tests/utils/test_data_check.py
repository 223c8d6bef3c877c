import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import CLASSES, ROOT
from utils.data_check import KINDS, DataCheck, check_data, repeated_boxes
from utils.data_config import load_data_config
from utils.errors import DataError
from utils.label_index import open_index

BCCD = ROOT.parent / "shared" / "datasets" / "bccd"
SIZE = (96, 128)  # height, width
GOOD = (10, 10, 40, 40)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8, blots of all colours; no two alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC)


def voc(*objects: tuple, size: tuple[int, int] | None = SIZE) -> str:
    """The text of a label file with objects (name, x1, y1, x2, y2)."""
    text = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    for name, *box in objects:
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
        text += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation>{text}</annotation>"


class Folder:
    """A data set in the making: train/ and valid/ with images/ and labels/."""

    def __init__(self, root: Path) -> None:
        self.root, self.seed = root, 0
        keys = {
            f"{s.upper()}_DIR_{k.upper()}": str(root / s / k) for s in ("train", "valid") for k in ("images", "labels")
        }
        for folder in keys.values():
            Path(folder).mkdir(parents=True)
        self.yaml = root / "data.yaml"
        self.rewrite(CLASSES=CLASSES, **keys)

    def rewrite(self, **changes: object) -> None:
        old = yaml.safe_load(self.yaml.read_text()) if self.yaml.is_file() else {}
        self.yaml.write_text(yaml.safe_dump({k: v for k, v in {**old, **changes}.items() if v is not None}))

    def image(self, name: str, split: str = "train", size: tuple[int, int] = SIZE, **how: object) -> Path:
        """Save a new picture; `mode` converts it."""
        self.seed += 1
        path = self.root / split / "images" / name
        Image.fromarray(picture(self.seed, size)).convert(how.pop("mode", "RGB")).save(path, **how)
        return path

    def label(self, name: str, text: str | None = None, split: str = "train") -> None:
        (self.root / split / "labels" / name).write_text(voc(("red", *GOOD)) if text is None else text)

    def pair(self, stem: str, *objects: tuple, split: str = "train", size: tuple[int, int] | None = SIZE) -> Path:
        """A sound image with these objects and a good one."""
        self.label(f"{stem}.xml", voc(("red", *GOOD), *objects, size=size), split)
        return self.image(f"{stem}.jpg", split)

    def check(self, label_type: str = "pascal_voc") -> DataCheck:
        return check_data(load_data_config(self.yaml), label_type)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def spoil_pixels(path: Path) -> None:
    """Header and end of a PNG stay, the compressed pixels become nonsense."""
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 4
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)


def deep(path: Path, *, grey: bool = False) -> None:
    pixels = picture(len(path.name)).astype(np.uint16) * 257
    cv2.imwrite(str(path), pixels[:, :, 0] if grey else pixels)


# What breaks the folder, and the problem that must be named: place, kind, words.
Sample = tuple[Callable[[Folder], object], str, str, str]
IMAGE, LABEL = "images that cannot be read", "label files that cannot be read"
ROW, COPY, NEAR = (
    "entries of label files that make no sense",
    "images that are there twice",
    "images that look the same",
)
EXIF, DEEP, ALPHA = (
    "images that EXIF turns",
    "images of more than 8 bits a channel",
    "images with transparency or a palette",
)
SAMPLES: dict[str, Sample] = {
    "empty image": (lambda f: f.pair("a").write_bytes(b""), "a.jpg", IMAGE, ""),
    "no image": (lambda f: f.pair("b").write_bytes(b"<html>404"), "b.jpg", IMAGE, "not an image"),
    "cut off jpeg": (lambda f: truncate(f.pair("c"), 900), "c.jpg", IMAGE, "cut off"),
    "cut off png": (lambda f: (f.label("d.xml"), truncate(f.image("d.png"), 900)), "d.png", IMAGE, "cut off"),
    "spoilt pixels": (lambda f: (f.label("e.xml"), spoil_pixels(f.image("e.png"))), "e.png", IMAGE, "as an image"),
    "empty label file": (lambda f: (f.pair("f"), f.label("f.xml", "")), "f.xml", LABEL, "not valid XML"),
    "half a label file": (lambda f: (f.pair("g"), f.label("g.xml", "<annotation>\n<size>")), "g.xml", LABEL, "line 2:"),
    "entities": (
        lambda f: (f.pair("h"), f.label("h.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')),
        "h.xml", LABEL, "DOCTYPE",
    ),
    "image and labels broken": (
        lambda f: (f.pair("i").write_bytes(b""), f.label("i.xml", "")), "i.xml", LABEL, "not valid XML"),
    "no labels": (lambda f: f.image("j.jpg"), "j.jpg", "images without labels, taken as without objects", ""),
    "no image for labels": (lambda f: f.label("k.xml"), "k.xml", "labels without image", ""),
    "one stem, two suffixes": (
        lambda f: (f.pair("l"), f.image("l.png")), "l.png", "images that share one label file", "l.xml is that of"),
    "two label files": (
        lambda f: (f.pair("m"), f.label("m.XML")), "m.", "label files of an image that has another", "only the other"),
    "other size": (
        lambda f: f.pair("n", size=(96, 100)), "n.xml", "image sizes in label files that are not the image's",
        "100x96, n.jpg is 128x96",
    ),
    "unknown class": (
        lambda f: f.pair("o", ("reed", *GOOD), ("reed", *GOOD)), "o.xml", "label files with a class that CLASSES lacks",
        "2 of 'reed'; did you mean 'red'?",
    ),
    "reversed": (
        lambda f: f.pair("p", ("red", 60, 60, 50, 50)), "p.xml", "boxes with reversed corners",
        "box 2 (red 60 60 49 49)",
    ),
    "no width": (lambda f: f.pair("q", ("red", 9, 9, 9, 30)), "q.xml", "boxes without area", "box 2 (red 9 8 9 30)"),
    "a point": (lambda f: f.pair("q2", ("red", 0, 0, 0, 0)), "q2.xml", "boxes without area", "box 2 (red 0 0 0 0)"),
    "far outside": (lambda f: f.pair("r", ("red", 500, 9, 520, 20)), "r.xml", "boxes outside their image", "box 2"),
    "half outside": (lambda f: f.pair("s", ("red", 90, 9, 180, 20)), "s.xml", "boxes that leave their image", "box 2"),
    "negative": (lambda f: f.pair("s2", ("red", -40, 9, 20, 20)), "s2.xml", "boxes that leave their image", "box 2"),
    "nan": (lambda f: f.pair("t", ("red", "nan", 9, 20, 20)), "t.xml", "boxes that are no numbers", "box 2 (red nan"),
    "infinite": (lambda f: f.pair("t2", ("red", 1, 9, "1e999", 20)), "t2.xml", "boxes that are no numbers", "box 2"),
    "twice": (lambda f: f.pair("u", ("red", 10, 10.4, 40, 40)), "u.xml", "boxes that are there twice", "2 is box 1"),
    "no corner": (lambda f: f.pair("v", ("red", 1, 2, 3)), "v.xml", ROW, "object 2 (red) has no bndbox of four"),
    "words for corners": (lambda f: f.pair("w", ("red", "a", 2, 3, 4)), "w.xml", ROW, "no bndbox of four numbers"),
    "no name": (lambda f: f.pair("x", ("", 1, 2, 30, 40)), "x.xml", ROW, "object 2 has no name"),
    "size in words": (
        lambda f: (f.pair("y"), f.label("y.xml", voc(("red", *GOOD), size=("big", "small")))), "y.xml",
        "entries of label files read in part", "size big x small",
    ),
    "exif sideways": (lambda f: (f.label("z.xml"), f.image("z.jpg", exif=exif(6))), "z.jpg", EXIF, "ion 6: boxes"),
    "exif 180": (lambda f: (f.label("z3.xml"), f.image("z3.jpg", exif=exif(3))), "z3.jpg", EXIF, "orientation 3"),
    "exif in png": (lambda f: (f.label("z2.xml"), f.image("z2.png", exif=exif(8))), "z2.png", EXIF, "orientation 8"),
    "16 bits": (lambda f: (f.label("a1.xml"), deep(f.image("a1.png"))), "a1.png", DEEP, "read as 8 bits"),
    "16 bits grey": (lambda f: (f.label("a2x.xml"), deep(f.image("a2x.tif"), grey=True)), "a2x.tif", DEEP, "8 bits"),
    "16 bits ppm": (lambda f: (f.label("a3xx.xml"), deep(f.image("a3xx.ppm"))), "a3xx.ppm", DEEP, "8 bits"),
    "grey": (lambda f: (f.label("a4.xml"), f.image("a4.jpg", mode="L")), "a4.jpg", "grey images", "read as RGB"),
    "cmyk": (lambda f: (f.label("a5.xml"), f.image("a5.jpg", mode="CMYK")), "a5.jpg", "CMYK images", "read as RGB"),
    "rgba": (lambda f: (f.label("a6.xml"), f.image("a6.png", mode="RGBA")), "a6.png", ALPHA, "RGBA"),
    "palette": (lambda f: (f.label("a7.xml"), f.image("a7.png", mode="P")), "a7.png", ALPHA, "P, read as opaque RGB"),
    "animated": (
        lambda f: (f.label("a8.xml"),
                   f.image("a8.webp", save_all=True, append_images=[Image.fromarray(picture(999))])),
        "a8.webp", "images of several frames", "2, the first is read",
    ),
    "huge": (
        lambda f: (f.label("a9.xml", voc(size=None)), f.image("a9.png", mode="1", size=(7100, 7100))),
        "a9.png", "images over 50 megapixels", "7100x7100",
    ),
    "other format": (lambda f: f.image("b1.gif"), "b1.gif", "image files of a format that is not read", "save it as"),
    "copy": (lambda f: shutil.copy(f.pair("b2"), f.pair("b3")), "b3.jpg", COPY, "the same as b2.jpg"),
    "re-compressed": (
        lambda f: Image.open(f.pair("b4")).save(f.pair("b5"), quality=60), "b5.jpg", NEAR, "the same as b4.jpg"),
    "resized": (
        lambda f: Image.open(f.pair("b6")).resize((120, 90)).save(f.pair("b7")), "b7.jpg", NEAR, "the same as b6.jpg"),
    "leaked": (
        lambda f: shutil.copy(f.pair("b8"), f.pair("b9", split="valid")), "b9.jpg",
        "images that another split has too (leakage)", "the same as b8.jpg of train",
    ),
    "leaked as png": (
        lambda f: (f.label("c2.xml", split="valid"), Image.open(f.pair("c1")).save(f.root / "valid/images/c2.png")),
        "c2.png", "images that look like one of another split (leakage)", "the same as c1.jpg of train",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, DataCheck]:
    folder = Folder(tmp_path_factory.mktemp("broken"))
    for split in ("train", "valid"):
        for i in range(4):
            folder.pair(f"good_{split}_{i}", ("green", 50, 50, 90, 80), split=split)
    for spoil, *_ in SAMPLES.values():
        spoil(folder)
    return folder, folder.check()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_broken_sample_is_named(broken: tuple[Folder, DataCheck], name: str) -> None:
    _, place, kind, words = SAMPLES[name]
    problems = [p for p in broken[1].problems if Path(p.place).name.startswith(place)]
    assert [p for p in problems if p.kind == kind and words in p.what], problems
    assert any(Path(p.place).name.startswith(place) and Path(p.place).is_file() for p in problems)


def test_good_samples_are_not_named(broken: tuple[Folder, DataCheck]) -> None:
    check = broken[1]
    named = (*(name for _, name, *_ in SAMPLES.values()), "b7.xml", "i.jpg")
    assert [p for p in check.problems if not Path(p.place).name.startswith(named)] == []
    assert [p for p in check.problems if "good" in p.place] == []
    assert check.splits["valid"].boxes_per_class == {"red": 6, "green": 4}
    assert check.splits["valid"].boxes_per_image == {"least": 1, "mean": 10 / 6, "median": 2, "most": 2}


def test_a_training_gets_the_boxes_that_the_check_counts(broken: tuple[Folder, DataCheck]) -> None:
    """No good one is lost; what cannot be decoded is named."""
    folder, check = broken
    assert check.stops  # for classes that CLASSES lacks
    for split in ("train", "valid"):
        index = open_index(load_data_config(folder.yaml), split, "pascal_voc", drop_unknown=True)
        assert (len(index), len(index.boxes)) == (check.splits[split].images, check.splits[split].boxes)
        for i in range(len(index)):
            try:
                index.pixels(i)
            except DataError:
                assert any(problem.place == str(index.path(i)) for problem in check.problems)
        good = [i for i, name in enumerate(index.files.names) if name.startswith("good")]
        assert [np.diff(index.offsets)[i] for i in good] == [2] * 4


def test_text_and_json_have_everything(broken: tuple[Folder, DataCheck]) -> None:
    check = broken[1]
    text = check.lines(None)
    for problem in check.problems:
        assert f"    {problem}" in text
    content = json.loads(json.dumps(check.as_dict()))
    assert len(content["problems"]) == len(check.problems)
    assert content["stops"] is True
    assert content["splits"]["train"]["unknown_classes"] == {"'reed'": 2}
    short = check.lines(1)
    count = Counter(p.kind for p in check.problems if p.split == "train")[ROW]
    at = short.index(f"  dropped: {count} {ROW}")
    assert short[at + 2] == f"    and {count - 1} more"
    assert "  2 boxes of 'reed', which CLASSES lacks; did you mean 'red'?" in short


def test_the_most_serious_comes_first(broken: tuple[Folder, DataCheck]) -> None:
    order = ["stops", "dropped", "mended", "nothing"]
    assert list(dict.fromkeys(KINDS.values())) == order
    for split in ("train", "valid"):
        effects = [order.index(p.effect) for p in broken[1].problems if p.split == split]
        assert effects == sorted(effects)


def test_a_sound_data_set(folder: Folder) -> None:
    for split in ("train", "valid"):
        for i in range(3):
            folder.pair(f"{split}_{i}", *[("green", 50, 50, 90, 80)] * min(i, 1), split=split)
    check = folder.check()
    assert check.problems == []
    assert not check.stops
    assert check.lines()[:3] == [
        "train: 3 images, 5 boxes (red 3, green 2); 0 images without objects",
        f"  images in {folder.root}/train/images, labels in {folder.root}/train/labels",
        "  boxes per image: least 1, mean 1.667, median 2, most 2",
    ]


def test_pictures_that_differ_are_no_copies(folder: Folder) -> None:
    for i in range(150):
        folder.image(f"{i}.jpg")
    folder.image("a.jpg", "valid")
    kinds = Counter(p.kind for p in folder.check().problems if p.effect == "nothing")
    assert set(kinds) <= {"images without labels, taken as without objects"}


def test_yolo(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.image(f"{split}.jpg", split)
    rows = "0 .5 .5 .2 .2\n7 .5 .5 .1 .1\n0 .5 .5 .2\none .5 .5 .1 .1\n1.5 .5 .5 .1 .1\n0 .3 .3 .1 .1 .9\n0 2 2 .1 .1\n"
    folder.label("train.txt", rows)
    folder.label("valid.txt", "", "valid")
    check = folder.check("yolo")
    assert [(p.kind, p.what) for p in check.problems] == [
        ("label files with a class number that CLASSES lacks", "1 of class 7"),
        ("boxes outside their image", "box 4 (red 249.6 187.2 262.4 196.8)"),
        (ROW, "line 3 has 4 numbers, expected 5, dropped"),
        (ROW, "line 4 is not all numbers, dropped"),
        (ROW, "line 5 has class 1.5, which is no class number, dropped"),
        ("entries of label files read in part", "line 6 has a confidence, which is left out"),
    ]
    assert {Path(p.place).name for p in check.problems} == {"train.txt"}
    assert check.splits["valid"].without_objects == 1


def test_coco(folder: Folder) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 96, "width": 128} for i in range(3)]
    box = {"image_id": 0, "category_id": 1, "bbox": [10, 10, 20, 20]}
    changes = (
        {},
        {},
        {"category_id": 5},
        {"category_id": 2},
        {"image_id": 9},
        {"bbox": [1, 2]},
        {"bbox": [5, 5, 0, 4]},
    )
    content = {
        "images": [*images, {"id": 9}, images[0]],
        "annotations": [{**box, **change} for change in changes],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "gren"}],
    }
    for split in ("train", "valid"):
        path = folder.root / f"{split}.json"
        path.write_text(json.dumps(content))
        folder.rewrite(**{f"{split.upper()}_DIR_LABELS": str(path)})
        folder.image("0.jpg", split)
    folder.image("7.jpg")
    found = [(p.kind, Path(p.place).name, p.what) for p in folder.check("coco").problems if p.split == "train"]
    name, row = "train.json: 0.jpg", (ROW, "train.json")
    assert found == [
        ("label files with a class that CLASSES lacks", name, "1 of category 5"),
        ("label files with a class that CLASSES lacks", name, "1 of 'gren'; did you mean 'green'?"),
        ("boxes without area", name, "box 5 (red 5 5 5 9)"),
        (*row, "images[3] has no file_name, dropped"),
        (*row, "images[4] is 0.jpg again, dropped"),
        (*row, "annotations[4] is of no image in the file, dropped"),
        (*row, "annotations[5] has no bbox of four numbers, dropped"),
        ("labels without image", "train.json", "1.jpg"),
        ("labels without image", "train.json", "2.jpg"),
        ("images without labels, taken as without objects", "7.jpg", ""),
        ("boxes that are there twice", name, "box 2 is box 1 again"),
    ]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f.rewrite(TRAIN_DIR_IMAGES=None, TRAIN_DIR_LABELS=None), "are missing"),
        (lambda f: shutil.rmtree(f.root / "train/labels"), "does not exist"),
        (lambda f: shutil.rmtree(f.root / "train/images"), "does not exist"),
        (lambda f: [path.unlink() for path in (f.root / "train/images").iterdir()], "no images in"),
        (
            lambda f: [path.rename(path.with_suffix(".txt")) for path in (f.root / "train/labels").iterdir()],
            "type yolo",
        ),
        (lambda f: f.rewrite(TRAIN_LIST=str(f.root / "no.txt")), "cannot be read as a list"),
        (lambda f: f.rewrite(TRAIN_DIR_LABELS=str(f.root / "data.yaml")), "expected a folder of .xml files"),
    ],
)
def test_a_split_that_cannot_be_opened_hides_no_other_fault(folder: Folder, spoil: Callable, words: str) -> None:
    folder.pair("a").write_bytes(b"")
    folder.pair("b", ("red", 9, 9, 9, 9), split="valid")
    spoil(folder)
    check = folder.check()
    assert check.stops
    stops = [p for p in check.problems if p.split == "train" and p.kind == "splits that cannot be opened"]
    assert len(stops) == 1
    assert words in stops[0].what
    assert [p.kind for p in check.problems if p.split == "valid"] == ["boxes without area"]
    if (folder.root / "train/images/a.jpg").is_file() and "TRAIN_DIR_IMAGES" in folder.yaml.read_text():
        assert [p.kind for p in check.problems if p.split == "train"][1:2] == [IMAGE]
    with pytest.raises(DataError, match=words):
        open_index(load_data_config(folder.yaml), "train", "pascal_voc")


def test_split_lists(folder: Folder) -> None:
    """Two splits of one folder: entries that are not there, and an image in both."""
    images, labels = (str(folder.root / "train" / kind) for kind in ("images", "labels"))
    for stem in "abc":
        folder.pair(stem)
    (folder.root / "train.txt").write_text("a\nb\nz\n")
    (folder.root / "valid.txt").write_text("b\nc\n")
    lists = {f"{split.upper()}_LIST": str(folder.root / f"{split}.txt") for split in ("train", "valid")}
    folder.rewrite(VALID_DIR_IMAGES=images, VALID_DIR_LABELS=labels, **lists)
    assert [(p.split, p.kind, str(p)) for p in folder.check().problems] == [
        ("train", "listed images that are not there", "train.txt: entry 3, z"),
        ("valid", "images that another split has too (leakage)", "b.jpg: the same as b.jpg of train"),
    ]


def test_one_label_folder_for_two_splits(folder: Folder) -> None:
    folder.pair("a")
    folder.image("a.png", "valid")
    folder.rewrite(VALID_DIR_LABELS=str(folder.root / "train/labels"))
    (problem,) = folder.check().problems
    assert str(problem) == f"a.png: a.xml is that of {folder.root}/train/images/a.jpg too"


def test_a_fault_of_the_test_split_stops_no_training(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.pair(split, split=split)
    folder.rewrite(TEST_DIR_IMAGES=str(folder.root / "no"), TEST_DIR_LABELS=str(folder.root / "no"))
    check = folder.check()
    assert [(p.split, p.effect) for p in check.problems] == [("test", "stops")]
    assert not check.stops


def test_repeated_boxes() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 5, 9, 9], [0.4, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0.6, 9, 9.0]])
    images, labels = np.array([0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 2, 1, 1])
    assert repeated_boxes(images, labels, boxes).tolist() == [-1, -1, 0, -1, -1, -1]
    assert repeated_boxes(images[:0], labels[:0], boxes[:0]).tolist() == []


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not beside the project")
def test_bccd_has_two_bad_boxes_and_no_leak(tmp_path: Path) -> None:
    keys = {
        f"{split.upper()}_DIR_{kind}": str(BCCD / split / name)
        for split in ("train", "valid", "test")
        for kind, name in (("IMAGES", "images"), ("LABELS", "annotations"))
    }
    (tmp_path / "bccd.yaml").write_text(
        yaml.safe_dump({"CLASSES": ["__background__", "RBC", "WBC", "Platelets"], **keys})
    )
    check = check_data(load_data_config(tmp_path / "bccd.yaml"), "pascal_voc")
    assert [(p.split, p.kind, str(p)) for p in check.problems] == [
        ("train", "boxes without area", "BloodImage_00343.xml: box 4 (RBC 181 329 181 329)"),
        ("valid", "boxes without area", "BloodImage_00338.xml: box 13 (RBC 504 337 504 337)"),
    ]
    assert not check.stops
