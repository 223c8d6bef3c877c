"""Repaired copies of data sets with every fault that we know."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.fuzzing.broken_samples import (
    COCO,
    GOOD_BOX,
    LABEL_TYPES,
    OF_TYPE,
    VOC,
    YOLO,
    Folder,
    Sample,
    broken_folder,
)
from utils.data_tools.check import BAD_SPLIT, DROPPED, DUPLICATE_IMAGE, KINDS, REPAIRED, STOPS, DataCheck, check_data
from utils.data_tools.convert import check_new_folder
from utils.data_tools.repair import ACTIONS, repair_data
from utils.errors import DataError, UserError
from utils.labels.boxes import repair_boxes
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index

Repaired = tuple[Folder, DataCheck, Path]


@pytest.fixture(scope="module", params=LABEL_TYPES)
def repaired(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    """A broken data set, its check, and the YAML of its repaired copy."""
    root = tmp_path_factory.mktemp(request.param)
    folder = broken_folder(root / "broken", request.param)
    check = folder.check()
    return folder, check, repair_data(load_data_config(folder.yaml), check, root / "copy")


def fix(folder: Folder, name: str = "copy") -> Path:
    """The repaired copy of a data set, beside it."""
    check = folder.check()
    return repair_data(load_data_config(folder.yaml), check, folder.root.with_name(name))


def indexes(yaml_path: Path, label_type: str, **how: bool) -> dict[str, LabelIndex]:
    config = load_data_config(yaml_path)
    return {split: open_index(config, split, label_type, **how) for split in config.splits}


def boxes_of(sample: Sample, found: dict[str, LabelIndex]) -> int:
    return sum(
        len(index.boxes[index.rows(i)])
        for index in found.values()
        for i, name in enumerate(index.files.names)
        if sample.owns(name)
    )


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_a_check_of_the_copy_finds_nothing_that_a_training_would_mind(repaired: Repaired) -> None:
    folder, _, path = repaired
    found = check_data(load_data_config(path), folder.label_type)
    assert [problem for problem in found.problems if problem.effect in (STOPS, DROPPED, REPAIRED)] == []
    kinds = {problem.kind for problem in found.problems}
    left = {kind for kind, action in ACTIONS.items() if action == "unchanged"}
    assert kinds <= left, kinds - left


def test_no_good_box_is_lost(repaired: Repaired) -> None:
    folder, _, path = repaired
    before, after = indexes(folder.yaml, folder.label_type, drop_unknown=True), indexes(path, folder.label_type)
    for name, sample in OF_TYPE[folder.label_type].items():
        assert (name, boxes_of(sample, before)) == (name, sample.boxes)
        assert (name, boxes_of(sample, after)) == (name, sample.mended())
    for index in (*before.values(), *after.values()):
        for i, name in enumerate(index.files.names):
            boxes = index.boxes[index.rows(i)]
            assert not len(boxes) or np.isclose(boxes, GOOD_BOX, atol=1e-4).all(1).any(), name


def test_every_image_of_the_copy_can_be_decoded_and_has_labels(repaired: Repaired) -> None:
    folder, _, path = repaired
    for index in indexes(path, folder.label_type).values():
        assert "no labels, taken as without objects" not in index.report.items
        assert not index.as_stored.any()
        for i in range(len(index)):
            assert index.pixels(i).shape[:2] == tuple(index.sizes[i])


def test_the_original_stays_as_it_is(tmp_path: Path) -> None:
    folder = broken_folder(tmp_path / "broken", VOC)
    check, before = folder.check(), snapshot(folder.root)
    repair_data(load_data_config(folder.yaml), check, tmp_path / "copy")
    assert snapshot(folder.root) == before
    assert len(before) > 180


def test_every_kind_of_problem_has_its_answer() -> None:
    assert ACTIONS.keys() == KINDS.keys() - {BAD_SPLIT, "duplicate images across splits (leakage)"}


def test_it_says_what_was_done(repaired: Repaired, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    folder, check, _ = repaired
    caplog.set_level(logging.INFO)
    repair_data(load_data_config(folder.yaml), check, tmp_path / "again")
    lines = caplog.messages
    for kind, count in Counter(problem.kind for problem in check.problems if problem.kind in ACTIONS).items():
        if kind not in (DUPLICATE_IMAGE, "images that EXIF turns") and not kind.startswith("label files with "):
            assert f"  {ACTIONS[kind]}: {count} {kind}" in lines
    assert "  left out: 1 images of train that valid or test has too, byte for byte" in lines
    copies = {VOC: 1, YOLO: 2, COCO: 1}[folder.label_type]
    assert f"  left out: {copies} duplicate images" in lines
    of_boxes = [line for line in lines if line.endswith(" label files' boxes of classes missing from CLASSES")]
    files = sum(problem.kind.startswith("label files with ") for problem in check.problems)
    assert of_boxes == [f"  left out: {files} label files' boxes of classes missing from CLASSES"]
    turned = {VOC: 6, YOLO: 0, COCO: 6}[folder.label_type]
    assert (f"  repaired: {turned} EXIF orientations that the boxes do not follow" in lines) == bool(turned)
    assert any(line.startswith("  valid: ") and line.endswith(" boxes") for line in lines)
    assert any(line.startswith("Left out with all their boxes: ") for line in lines)


def test_train_gives_way_to_valid_and_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path / "data")
    test = {f"TEST_DIR_{kind.upper()}": folder.root / "test" / kind for kind in ("images", "labels")}
    for path in test.values():
        path.mkdir(parents=True)
    folder.rewrite(**{key: str(path) for key, path in test.items()})
    everywhere = folder.pair("a")
    for split in ("valid", "test"):
        folder.pair("a", split=split).write_bytes(everywhere.read_bytes())
    folder.pair("b", split="test").write_bytes(folder.pair("b").read_bytes())
    folder.pair("c")
    caplog.set_level(logging.INFO)
    found = indexes(fix(folder), VOC)
    names = {split: list(index.files.names) for split, index in found.items()}
    assert names == {"train": ["c.jpg"], "valid": ["a.jpg"], "test": ["a.jpg", "b.jpg"]}
    assert "  left out: 2 images of train that valid or test has too, byte for byte" in caplog.messages
    assert "  unchanged: 1 images that valid and test both have" in caplog.messages


def test_of_copies_that_with_the_most_boxes_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    image = folder.image("a.jpg")
    folder.pair("b", ("green", 50, 50, 60, 60)).write_bytes(image.read_bytes())
    folder.pair("c").write_bytes(image.read_bytes())
    folder.pair("d", split="valid")
    assert list(indexes(fix(folder), VOC)["train"].files.names) == ["b.jpg"]


@pytest.mark.parametrize("label_type", [VOC, YOLO])
def test_images_that_shared_labels_have_their_own(tmp_path: Path, label_type: str) -> None:
    folder = Folder(tmp_path / "data", label_type)
    for name in ("a.jpg", "a.png", "a.bmp", "a_png.png", "n/a.jpg"):
        folder.sound(name)
    folder.sound("v.jpg", split="valid")
    found = indexes(fix(folder), label_type)["train"]
    assert sorted(found.files.names) == ["a.bmp", "a_jpg.jpg", "a_png.png", "a_png_2.png", "n/a.jpg"]
    assert np.diff(found.offsets).tolist() == [1] * 5
    labels = sorted(path.name for path in (tmp_path / "copy/train/labels").rglob("*.*"))
    assert len(labels) == 5
    assert found.report.items == {}


def test_a_crowd_box_gives_way_to_the_same_box(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data", COCO)
    folder.image("a.jpg")
    folder.entry("a.jpg", {"iscrowd": 1}, {})
    folder.sound("v.jpg", split="valid")
    assert indexes(fix(folder), COCO)["train"].ignored.tolist() == [False]


def test_the_yaml_keeps_the_rest(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    for split in ("train", "valid"):
        folder.pair(split, split=split)
    (tmp_path / "list.txt").write_text("train\n")
    folder.rewrite(TRAIN_LIST=str(tmp_path / "list.txt"), SAVE_VALID_PREDICTION_IMAGES=True)
    content = yaml.safe_load(fix(folder).read_text())
    assert content["SAVE_VALID_PREDICTION_IMAGES"] is True
    assert "TRAIN_LIST" not in content
    assert content["TRAIN_DIR_IMAGES"] == str(tmp_path / "copy/train/images")


def test_where_nothing_would_be_left_it_says_so(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    folder.pair("a", split="valid").write_bytes(folder.pair("a").read_bytes())
    with pytest.raises(DataError, match="no image of train would be left"):
        fix(folder)
    folder.rewrite(TRAIN_DIR_LABELS=str(tmp_path / "no"))
    with pytest.raises(DataError, match="does not exist"):
        fix(folder)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "holds the images of this data set"),
        ("train", "holds the images of this data set"),
        ("train/images", "holds the images of this data set"),
        ("train/images/fixed", "is in .*, with the images of this data set"),
        ("valid/labels/fixed", "is in .*, with the labels of this data set"),
        ("full", "is not empty .old.txt is in it."),
        ("data.yaml", "a file of that name is in the way"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, path: str, words: str) -> None:
    folder = Folder(tmp_path / "data")
    (folder.root / "full").mkdir()
    (folder.root / "full/old.txt").write_text("")
    with pytest.raises(UserError, match=words):
        check_new_folder(load_data_config(folder.yaml), folder.root / path)


def test_as_a_script(tmp_path: Path, run) -> None:
    folder = Folder(tmp_path / "data")
    for split in ("train", "valid"):
        folder.pair(split, ("reed", 50, 50, 60, 60), split=split)
    done = run("datasets.py", "check", "--data", folder.yaml, "--fix", "fixed")
    assert done.returncode == 0, done.stderr
    assert "Repaired copy:\n  train: 1 of 1 images, 1 of 2 boxes\n" in done.stdout
    assert "Left out with all their boxes: 'reed' (2 boxes); if CLASSES is wrong, correct it" in done.stdout
    assert "The repaired data set is fixed: --data fixed/data_config.yaml --label-type pascal_voc" in done.stdout
    assert run("datasets.py", "check", "--data", "fixed/data_config.yaml").returncode == 0
    again = run("datasets.py", "check", "--data", folder.yaml, "--fix", "fixed")
    assert (again.returncode, "fixed is not empty" in again.stderr) == (2, True)


def test_sizes_are_those_of_the_images(tmp_path: Path) -> None:
    """Boxes that a wrong size would have clipped stay."""
    folder = Folder(tmp_path / "data")
    folder.pair("a", ("green", 50, 50, 128, 96), size=(50, 50))
    folder.pair("v", split="valid")
    index = indexes(fix(folder), VOC)["train"]
    assert repair_boxes(index.boxes, np.tile(index.sizes[0], (2, 1)))[2].tolist() == ["", ""]
    assert "<width>128</width>" in (tmp_path / "copy/train/labels/a.xml").read_text()
