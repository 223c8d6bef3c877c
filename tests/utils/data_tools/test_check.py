import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT
from tests.support.fuzzing.broken_samples import (
    COCO,
    GOOD,
    IMAGE,
    LABEL_TYPES,
    OF_TYPE,
    ROW,
    SAMPLES,
    SIZE,
    VOC,
    YOLO,
    Folder,
    broken_folder,
    truncate,
    voc,
)
from utils.data_tools.check import KINDS, DataCheck, check_data
from utils.errors import DataError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index

GREEN = "; did you mean 'green'?"
BCCD = ROOT.parent / "shared" / "datasets" / "bccd"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module", params=LABEL_TYPES)
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, DataCheck]:
    folder = broken_folder(tmp_path_factory.mktemp("broken"), request.param)
    return folder, folder.check()


def test_there_are_enough_of_them() -> None:
    assert len(SAMPLES) >= 100
    assert min(map(len, OF_TYPE.values())) >= 85


def test_every_broken_sample_is_named(broken: tuple[Folder, DataCheck]) -> None:
    folder, check = broken
    samples = OF_TYPE[folder.label_type]
    expected = Counter((sample.kind, sample.words) for sample in samples.values() if sample.kind)
    for name, sample in samples.items():
        named = [problem for problem in check.problems if sample.names(problem)]
        assert bool(named) == bool(sample.kind), (name, [p for p in check.problems if sample.owns(p.name)])
        if sample.kind == ROW and folder.label_type == COCO:  # named for all of the json
            assert len(named) >= expected[sample.kind, sample.words], name


def test_what_is_not_broken_is_not_named(broken: tuple[Folder, DataCheck]) -> None:
    folder, check = broken
    samples = OF_TYPE[folder.label_type].values()
    extra = [p for p in check.problems if not any(s.names(p) for s in samples)]
    beside = {"gray images", "duplicate boxes", IMAGE, ROW}  # of samples that are named for something else
    assert {p.kind for p in extra} <= beside, extra
    for problem in extra:
        assert any(sample.kind and sample.owns(problem.name) for sample in samples) or problem.kind == ROW, problem
    assert not any("good" in problem.path for problem in check.problems)
    assert check.splits["valid"].boxes_per_class == {"red": 6, "green": 4}
    assert check.splits["valid"].boxes_per_image == {"least": 1, "mean": 10 / 6, "median": 2, "most": 2}


def decodes(index: LabelIndex, i: int) -> bool:
    try:
        index.pixels(i)
    except DataError:
        return False
    return True


def test_a_training_gets_the_boxes_that_the_check_counts(broken: tuple[Folder, DataCheck]) -> None:
    """No good one is lost; what cannot be decoded is named."""
    folder, check = broken
    damaged = []
    for split in ("train", "valid"):
        index = open_index(load_data_config(folder.yaml), split, folder.label_type, drop_unknown=True)
        assert (len(index), len(index.boxes)) == (check.splits[split].images, check.splits[split].boxes)
        for i in range(len(index)):
            if not decodes(index, i):
                damaged.append(index.files.names[i])
                assert any(p.path == str(index.path(i)) and p.kind == IMAGE for p in check.problems)
        good = [i for i, name in enumerate(index.files.names) if name.startswith("good")]
        assert [np.diff(index.offsets)[i] for i in good] == [2] * 4
    samples = OF_TYPE[folder.label_type].values()
    assert all(any(sample.owns(name) and not sample.decodes for sample in samples) for name in damaged)
    assert len(damaged) == sum(not sample.decodes for sample in samples)


def test_text_and_json_have_everything(broken: tuple[Folder, DataCheck]) -> None:
    folder, check = broken
    text = check.lines(None)
    for problem in check.problems:
        assert f"    {problem}" in text
    content = json.loads(json.dumps(check.as_dict()))
    assert len(content["problems"]) == len(check.problems)
    assert content["stops"] is True
    unknown = {
        VOC: {"'reed'": 2},
        YOLO: {"class 2": 1, "class 7": 1},
        COCO: {"'reed'": 2, "'pink'": 1, "category 99": 1, "category None": 1},
    }
    assert content["splits"]["train"]["unknown_classes"] == unknown[folder.label_type]
    short = check.lines(1)
    count = Counter(p.kind for p in check.problems if p.split == "train")[ROW]
    at = short.index(f"  dropped: {count} {ROW}")
    assert short[at + 2] == f"    and {count - 1} more"
    hint = "; did you mean 'red'?" if folder.label_type != YOLO else ""
    name = {VOC: "'reed'", COCO: "'reed'", YOLO: "class 7"}[folder.label_type]
    assert f"  {unknown[folder.label_type][name]} boxes of {name}, which is not in CLASSES{hint}" in short


def test_unknown_classes_stop_nothing_where_they_are_dropped(broken: tuple[Folder, DataCheck]) -> None:
    folder, check = broken
    dropping = folder.check(drop_unknown=True, near_duplicates=False)
    unknown = [p for p in dropping.problems if p.kind == "label files with boxes of a class missing from CLASSES"]
    before = [p for p in check.problems if p.effect == "stops"]
    assert [(p.path, p.detail) for p in unknown] == [(p.path, p.detail) for p in before]
    assert {p.effect for p in unknown} == {"dropped"}
    assert (check.stops, dropping.stops) == (True, False)
    assert dropping.splits == check.splits


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
    assert set(kinds) <= {"images without labels, used as images without objects"}


def test_yolo(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.image(f"{split}.jpg", split)
    rows = "0 .5 .5 .2 .2\n7 .5 .5 .1 .1\n0 .5 .5 .2\none .5 .5 .1 .1\n1.5 .5 .5 .1 .1\n0 .3 .3 .1 .1 .9\n0 2 2 .1 .1\n"
    folder.label("train.txt", rows)
    folder.label("valid.txt", "", "valid")
    check = folder.check("yolo")
    assert [(p.kind, p.detail) for p in check.problems] == [
        ("label files with a class number outside CLASSES", "1 box of class 7"),
        ("boxes outside their image", "box 4 (red 249.6 187.2 262.4 196.8)"),
        (ROW, "line 3 has 4 numbers, expected 5, dropped"),
        (ROW, "line 4 is not all numbers, dropped"),
        (ROW, "line 5 has class 1.5, which is no class number, dropped"),
        ("partly invalid entries of label files", "line 6 has a confidence, which is left out"),
    ]
    assert {Path(p.path).name for p in check.problems} == {"train.txt"}
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
    found = [(p.kind, Path(p.path).name, p.detail) for p in folder.check("coco").problems if p.split == "train"]
    name, row = "train.json: 0.jpg", (ROW, "train.json")
    assert found == [
        ("label files with a class missing from CLASSES", name, "1 box of category 5"),
        ("label files with a class missing from CLASSES", name, "1 box of 'gren'; did you mean 'green'?"),
        ("boxes without area", name, "box 5 (red 5 5 5 9)"),
        (*row, "images[3] has no file_name, dropped"),
        (*row, "images[4] is 0.jpg again, dropped"),
        (*row, "annotations[4] is of no image in the file, dropped"),
        (*row, "annotations[5] has no bbox of four numbers, dropped"),
        ("labels without an image", "train.json", "1.jpg"),
        ("labels without an image", "train.json", "2.jpg"),
        ("images not listed in the COCO JSON file", "7.jpg", ""),
        ("duplicate boxes", name, "box 2 is equal to box 1"),
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
    assert words in stops[0].detail
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
        ("train", "listed images that do not exist", "train.txt: entry 3, z"),
        ("valid", "duplicate images across splits (leakage)", "b.jpg: the same as b.jpg of train"),
    ]


def test_one_label_folder_for_two_splits(folder: Folder) -> None:
    folder.pair("a")
    folder.image("a.png", "valid")
    folder.rewrite(VALID_DIR_LABELS=str(folder.root / "train/labels"))
    (problem,) = folder.check().problems
    assert str(problem) == f"a.png: a.xml also belongs to {folder.root}/train/images/a.jpg"


def test_a_fault_of_the_test_split_stops_no_training(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.pair(split, split=split)
    folder.rewrite(TEST_DIR_IMAGES=str(folder.root / "no"), TEST_DIR_LABELS=str(folder.root / "no"))
    check = folder.check()
    assert [(p.split, p.effect) for p in check.problems] == [("test", "stops")]
    assert not check.stops


@pytest.mark.parametrize("label_type", LABEL_TYPES)
def test_places_are_named_below_their_folders(tmp_path: Path, label_type: str) -> None:
    folder = Folder(tmp_path, label_type)
    truncate(folder.pair("n/a"), 900)
    shutil.copy(folder.pair("n/b", ("red", 9, 9, 9, 30)), folder.pair("m/b", split="valid"))
    shutil.copy(folder.root / "train/images/n/b.jpg", folder.pair("n/o/c"))
    folder.image("n/d.jpg")
    folder.image("n/e.gif")
    folder.pair("v", split="valid")
    start, suffix = {VOC: ("", "xml"), YOLO: ("", "txt"), COCO: ("train.json: ", "jpg")}[label_type]
    broken, *others = folder.check().problems
    assert str(broken).startswith("n/a.jpg: ")
    assert (
        [(p.split, str(p).partition(" (red")[0]) for p in others]
        == [
            ("train", f"{start}n/b.{suffix}: box 2"),
            *[("train", "n/d.jpg")] * (label_type == COCO),  # its json does not list it
            ("train", "n/e.gif: save it as .jpg or .png"),
            *[("train", "n/d.jpg")] * (label_type != COCO),
            ("train", "n/o/c.jpg: the same as n/b.jpg"),
            ("valid", "m/b.jpg: the same as n/b.jpg of train"),
            ("valid", "m/b.jpg: the same as n/b.jpg of train"),
        ][: len(others)]
    )
    assert len(others) >= 5


@pytest.mark.parametrize("label_type", [VOC, COCO])
@pytest.mark.parametrize(("name", "near"), [("Green", GREEN), ("gren", GREEN), ("sky", "")])
def test_the_nearest_class_is_named_with_counts(tmp_path: Path, label_type: str, name: str, near: str) -> None:
    folder = Folder(tmp_path, label_type)
    for split in ("train", "valid"):
        folder.coco[split]["categories"].append({"id": 50, "name": name})
        folder.image(f"{split}.jpg", split)
        folder.label(f"{split}.xml", voc(("red", *GOOD), *3 * [(name, *GOOD)], size=SIZE), split)
        folder.entry(f"{split}.jpg", {}, *3 * [{"category_id": 50}], split=split)
    check = folder.check()
    assert [p.detail for p in check.problems if p.effect == "stops"] == 2 * [f"3 boxes of '{name}'{near}"]
    assert f"  3 boxes of '{name}', which is not in CLASSES{near}" in check.lines()
    with pytest.raises(DataError, match=rf"'{name}' \(3 boxes, first in [^;]*{re.escape(near)}\)"):
        open_index(load_data_config(folder.yaml), "train", label_type)


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
