import itertools
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from tests.conftest import CLASSES, DataSet, write_data_set
from utils.cli.options import LABEL_TYPES
from utils.data_tools.convert import convert, write_splits
from utils.errors import UserError
from utils.labels.data_config import Split, load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.labels.sources import open_labels
from utils.labels.writers import write_voc, write_yolo


def index_of(config: Path, label_type: str, split: str = "train") -> LabelIndex:
    return open_index(load_data_config(config), split, label_type)


def mark_difficult(data: DataSet) -> None:
    xml = data.root / "train/labels/train_1.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1", 1))


def assert_same(one: LabelIndex, other: LabelIndex) -> None:
    assert list(one.files.names) == list(other.files.names)
    for name in ("sizes", "offsets", "boxes", "labels", "ignored"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(LABEL_TYPES, 2)])
def test_there_and_back_loses_nothing(make_data, tmp_path: Path, first: str, second: str) -> None:
    data = make_data()
    before = index_of(data.yaml, "pascal_voc")
    there = convert(load_data_config(data.yaml), "pascal_voc", first, tmp_path / "there")
    back = convert(load_data_config(there), first, second, tmp_path / "back")
    assert_same(before, index_of(back, second))
    assert (tmp_path / "back/train/images/train_0.jpg").read_bytes() == before.path(0).read_bytes()
    assert yaml.safe_load(back.read_text())["CLASSES"] == CLASSES


def test_difficult_is_kept_by_voc_and_coco_and_left_out_by_yolo(
    make_data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = make_data()
    mark_difficult(data)
    before = index_of(data.yaml, "pascal_voc")
    assert before.ignored.sum() == 1
    coco = convert(load_data_config(data.yaml), "pascal_voc", "coco", tmp_path / "coco")
    assert_same(before, index_of(coco, "coco"))
    voc = convert(load_data_config(coco), "coco", "pascal_voc", tmp_path / "voc")
    assert_same(before, index_of(voc, "pascal_voc"))
    yolo = convert(load_data_config(coco), "coco", "yolo", tmp_path / "yolo")
    assert len(index_of(yolo, "yolo").boxes) == len(before.boxes) - 1
    assert "Leaving out 1 difficult or crowd boxes, which YOLO cannot represent" in caplog.text


def test_pycocotools_reads_our_json(make_data, tmp_path: Path) -> None:
    data = make_data()
    config = convert(load_data_config(data.yaml), "pascal_voc", "coco", tmp_path / "coco")
    path = Path(load_data_config(config).splits["train"].labels)
    truth, index = COCO(str(path)), index_of(config, "coco")
    assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == CLASSES[1:]
    for i, image_id in enumerate(truth.getImgIds()):
        found = truth.loadAnns(truth.getAnnIds(image_id))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in found)]
        np.testing.assert_array_equal(np.array(boxes, np.float32).reshape(-1, 4), index.boxes[index.rows(i)])
        assert all(a["area"] == pytest.approx(a["bbox"][2] * a["bbox"][3]) for a in found)
    assert {a["id"] for a in json.loads(path.read_text())["annotations"]} == {1, 2, 3, 4, 5, 6}


def test_yolo_comes_with_the_yaml_of_its_tools(make_data, tmp_path: Path) -> None:
    convert(load_data_config(make_data().yaml), "pascal_voc", "yolo", tmp_path / "yolo")
    content = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert content == {
        "path": str(tmp_path / "yolo"), "train": "train/images", "val": "valid/images", "names": CLASSES[1:], "nc": 2,
    }  # fmt: skip


def test_nothing_is_overwritten(make_data, tmp_path: Path) -> None:
    data = make_data()
    config = load_data_config(data.yaml)
    convert(config, "pascal_voc", "yolo", tmp_path / "yolo")
    with pytest.raises(UserError, match=r"yolo is not empty .data.yaml is in it.: choose another folder"):
        convert(config, "pascal_voc", "coco", tmp_path / "yolo")
    for folder in (data.root, data.root / "train/images"):
        with pytest.raises(UserError, match="holds the images of this data set"):
            convert(config, "pascal_voc", "yolo", folder)
    with pytest.raises(UserError, match=r"is in .*, with the images of this data set"):
        convert(config, "pascal_voc", "yolo", data.root / "train/images/yolo")


def test_a_file_that_vanishes_is_named(make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()

    def convert_later(config, indexes, target, folder, **options):
        (data.root / "train/images/train_2.jpg").unlink()
        return write_splits(config, indexes, target, folder, **options)

    monkeypatch.setattr("utils.data_tools.convert.write_splits", convert_later)
    with pytest.raises(UserError, match=r"train_2\.jpg: No such file or directory: .*yolo is incomplete, remove it"):
        convert(load_data_config(data.yaml), "pascal_voc", "yolo", tmp_path / "yolo")


@pytest.mark.parametrize("target", ["pascal_voc", "yolo"])
def test_images_that_would_share_a_label_file_get_one_each(
    make_data, tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    data = make_data()
    image = data.root / "train/images/train_0.jpg"
    image.with_suffix(".JPEG").write_bytes(image.read_bytes())
    config = load_data_config(data.yaml)
    index = index_of(convert(config, "pascal_voc", target, tmp_path / "there"), target)
    assert list(index.files.names)[:2] == ["train_0.JPEG", "train_0_jpg.jpg"]
    assert (tmp_path / "there/train/images/train_0_jpg.jpg").read_bytes() == image.read_bytes()
    np.testing.assert_array_equal(index.boxes[index.rows(0)], index.boxes[index.rows(1)])
    assert "train_0.jpg is written as train_0_jpg.jpg, so that it does not share a label file" in caplog.text
    coco = convert(config, "pascal_voc", "coco", tmp_path / "coco")
    assert list(index_of(coco, "coco").files.names)[:2] == ["train_0.JPEG", "train_0.jpg"]


def into_folders(data: DataSet, *names: str) -> None:
    """Move the first images of train/, and their labels, to `names`."""
    for number, name in enumerate(names):
        for kind, suffix in (("images", ".jpg"), ("labels", ".xml")):
            path = data.root / "train" / kind / f"train_{number}{suffix}"
            new = (path.parent / name).with_suffix(suffix)
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)


def converted(data: DataSet, folder: Path, *targets: str) -> tuple[LabelIndex, LabelIndex]:
    """train/ as it is, and after conversion into one form after the other."""
    config, label_type = data.yaml, "pascal_voc"
    for target in targets:
        config = convert(load_data_config(config), label_type, target, folder / target)
        label_type = target
    return index_of(data.yaml, "pascal_voc"), index_of(config, label_type)


def test_coco_keeps_folders_in_folders(make_data, tmp_path: Path) -> None:
    data = make_data()
    into_folders(data, "a/deep/0.jpg", "b/deep/0.jpg", "a/deep/1.jpg")
    assert_same(*converted(data, tmp_path, "coco"))


@pytest.mark.parametrize("target", ["pascal_voc", "yolo"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/0.jpg", "b/1.jpg", "c.jpg"], ["0.jpg", "1.jpg", "c.jpg", "train_3.jpg"]),
        (["a/0.jpg", "b/0.jpg", "c.jpg"], ["a_0.jpg", "b_0.jpg", "c.jpg", "train_3.jpg"]),
        (["a/x.jpg", "b/X.jpg"], ["a_x.jpg", "b_X.jpg", "train_2.jpg", "train_3.jpg"]),
        (["a/b_c.jpg", "a_b/c.jpg", "c.jpg"], ["a_b_c.jpg", "a_b_c_jpg.jpg", "c.jpg", "train_3.jpg"]),
    ],
    ids=["other names", "same names", "other case", "same names once joined"],
)
def test_voc_and_yolo_get_one_folder(
    make_data, tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str, names: list[str], expected: list[str]
) -> None:
    caplog.set_level(logging.INFO)
    data = make_data()
    into_folders(data, *names)
    before, after = converted(data, tmp_path, "coco", target)
    assert list(after.files.names) == expected
    assert f"train: writing all images into one folder, for example {names[0]} as {expected[0]}" in caplog.text
    assert "valid: writing all images" not in caplog.text
    for i, name in enumerate(before.files.names):
        k = expected.index(expected[names.index(name)] if name in names else name)
        np.testing.assert_array_equal(before.pixels(i), after.pixels(k))
        np.testing.assert_array_equal(before.boxes[before.rows(i)], after.boxes[after.rows(k)])
        np.testing.assert_array_equal(before.labels[before.rows(i)], after.labels[after.rows(k)])
    labels = {path.stem for path in (tmp_path / target / "train/labels").iterdir()}
    assert labels == {Path(name).stem for name in expected}


@pytest.mark.parametrize("target", LABEL_TYPES)
def test_supervision_finds_images_of_folders_in_folders(make_data, tmp_path: Path, target: str) -> None:
    supervision = pytest.importorskip("supervision")
    data = make_data()
    into_folders(data, "a/0.jpg", "b/0.jpg", "c/1.jpg")
    before, _ = converted(data, tmp_path, target)
    train = tmp_path / target / "train"
    images, labels = str(train / "images"), str(train / "labels")
    read = {
        "pascal_voc": lambda: supervision.DetectionDataset.from_pascal_voc(images, labels),
        "yolo": lambda: supervision.DetectionDataset.from_yolo(images, labels, str(tmp_path / target / "data.yaml")),
        "coco": lambda: supervision.DetectionDataset.from_coco(images, str(train / "annotations.json")),
    }[target]()
    assert len(read) == 4
    found = np.concatenate([detections.xyxy for _, _, detections in read])
    np.testing.assert_allclose(np.sort(found, 0), np.sort(before.boxes, 0), atol=1e-3)


@pytest.mark.parametrize("target", LABEL_TYPES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_labels_of_the_stored_orientation_fit_every_reader(make_data, tmp_path: Path, target: str, suffix: str) -> None:
    data = make_data()
    path = data.root / "train/images/train_0.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(path).save(path.with_suffix(suffix), exif=exif)
    if suffix != ".jpg":
        path.unlink()
    before = index_of(data.yaml, "pascal_voc")
    assert before.as_stored.tolist() == [True, False, False, False]
    after = index_of(convert(load_data_config(data.yaml), "pascal_voc", target, tmp_path / "there"), target)
    assert not after.as_stored.any()
    assert_same(before, after)
    np.testing.assert_array_equal(before.pixels(0), after.pixels(0))
    turned = ImageOps.exif_transpose(Image.open(after.path(0)))
    assert turned.size == (80, 64)
    assert cv2.imread(str(after.path(0))).shape == (64, 80, 3)


def test_as_a_script(make_data, run) -> None:
    done = run("datasets.py", "convert", "--data", make_data().yaml, "--to", "coco", "-o", "there")
    assert done.returncode == 0, done.stderr
    assert "The converted data set is there: --data there/data_config.yaml --label-type coco" in done.stdout
    done = run("datasets.py", "convert", "--data", "there/data_config.yaml", "--to", "yolo", "-o", "back")
    assert (done.returncode, "add --label-type coco" in done.stderr) == (2, True), done.stderr
    assert run("datasets.py", "convert", "--to", "yolo").returncode == 2
    assert "convert" in run("datasets.py", "--help").stdout


SIZES = st.tuples(st.integers(2, 5000), st.integers(2, 5000))
FRACTIONS = st.tuples(*4 * [st.floats(0, 1, width=32)])


@given(SIZES, FRACTIONS)
def test_any_box_comes_back_from_voc_and_yolo(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], fractions: tuple[float, ...]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    x1, x2 = sorted((fractions[0] * size[1], fractions[1] * size[1]))
    y1, y2 = sorted((fractions[2] * size[0], fractions[3] * size[0]))
    box = np.array([[x1, y1, x2, y2]], np.float32)
    assume((box[:, 2:] - box[:, :2] > 1).all())
    write_voc(folder / "a.xml", "a.jpg", size, box, ["red"])
    write_yolo(folder / "a.txt", size, box, np.array([1]))
    for label_type in ("pascal_voc", "yolo"):
        source, matched = open_labels(Split(folder, folder), label_type, {"red": 1}, ["a.jpg"])
        np.testing.assert_allclose(source.read(int(matched[0]), size).boxes, box, rtol=0, atol=1e-6)


def test_a_box_of_a_pixel_is_left_out_of_voc_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_data_set(tmp_path, images=1, size=(32, 32), splits=("train",))
    (data.root / "train/labels/train_0.txt").write_text("0 0.5 0.5 0.02 0.5\n1 0.5 0.5 0.5 0.5\n")
    config = convert(load_data_config(data.yaml), "yolo", "pascal_voc", tmp_path / "voc")
    assert len(index_of(config, "pascal_voc").boxes) == 1
    assert "Leaving out 1 boxes at most a pixel wide or high, which VOC cannot represent" in caplog.text
