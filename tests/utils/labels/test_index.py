import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, DataSet
from tests.support.labels import to_coco, to_yolo
from torch_utils.evaluation.coco_eval import coco_metrics
from utils.detect.detections import Detections
from utils.errors import DataError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, class_hints, find_split, open_index, read_files
from utils.labels.readers import UNKNOWN

BCCD = ROOT.parent / "shared" / "datasets" / "bccd"


def open_train(data: DataSet, label_type: str = "pascal_voc") -> LabelIndex:
    return open_index(load_data_config(data.yaml), "train", label_type)


def add_object(xml: Path, name: str, box: tuple) -> None:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    thing = f"<object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>"
    xml.write_text(xml.read_text().replace("</annotation>", thing))


def test_coco_gives_the_same_index(make_data) -> None:
    data = make_data()
    voc = open_train(data)
    to_coco(data)
    coco = open_train(data, "coco")
    assert coco.report.lines() == []
    assert list(coco.files) == list(voc.files)
    for name in ("sizes", "offsets", "boxes", "labels", "ignored"):
        np.testing.assert_array_equal(getattr(coco, name), getattr(voc, name))


def test_coco_json_says_which_images_of_a_folder_are_the_splits(make_data) -> None:
    """With train.json and val.json for one folder, unlisted images do not belong to the split."""
    data = make_data()
    to_coco(data)
    path = data.root / "train.json"
    content = json.loads(path.read_text())
    content["images"] = [entry for entry in content["images"] if entry["file_name"] != "train_1.jpg"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 101]
    path.write_text(json.dumps(content))
    index = open_train(data, "coco")
    assert list(index.files.names) == ["train_0.jpg", "train_2.jpg", "train_3.jpg"]
    assert np.diff(index.offsets).tolist() == [1, 3, 0]
    assert index.report.lines() == ["images that COCO's json does not list, not of this split: 1 (train_1.jpg)"]


def test_a_split_list_chooses_images(make_data, tmp_path: Path) -> None:
    """Split lists like Pascal VOC's ImageSets: one folder for all splits, columns after the name are ignored."""
    data = make_data()
    (tmp_path / "list.txt").write_text("train_2\n\ntrain_0  1\ntrain_0\ntrain_9 -1\ntrain_1.jpg\n")
    data.rewrite(TRAIN_LIST=str(tmp_path / "list.txt"))
    index = open_train(data)
    assert list(index.files.names) == ["train_2.jpg", "train_0.jpg", "train_1.jpg"]
    assert np.diff(index.offsets).tolist() == [3, 1, 2]
    assert index.report.lines() == ["listed images that are not there: 1 (list.txt: entry 4, train_9 -1)"]
    (tmp_path / "list.txt").write_text("valid_0\n")
    with pytest.raises(DataError, match=r"list\.txt: names none of the images in .*: expected lines such as train_0"):
        open_train(data)
    (tmp_path / "list.txt").unlink()
    with pytest.raises(DataError, match=r"list\.txt: cannot be read as a list of image names"):
        open_train(data)


def test_labels_without_image_are_named(make_data) -> None:
    data = make_data()
    (data.root / "train/images/train_3.jpg").unlink()
    assert open_train(data).report.lines() == ["labels without image: 1 (train_3.xml)"]


def test_flat_arrays(make_data) -> None:
    index = open_train(make_data())
    assert list(index.files.names) == [f"train_{i}.jpg" for i in range(4)]
    assert np.diff(index.offsets).tolist() == [1, 2, 3, 0]
    assert index.sizes.tolist() == [[64, 80]] * 4
    assert index.boxes.dtype == np.float32
    assert index.labels.dtype == np.int32
    assert len(index.boxes) == len(index.labels) == len(index.ignored) == 6
    assert index.report.lines() == []


def test_image_without_objects_is_ordinary(make_data) -> None:
    """Fault of the predecessor: an image without objects crashed (VOC)."""
    index = open_train(make_data())
    assert index.boxes[index.rows(3)].shape == (0, 4)


def test_a_split_without_any_object_opens(make_data) -> None:
    data = make_data()
    for xml in (data.root / "train" / "labels").iterdir():
        xml.write_text("<annotation></annotation>")
    index = open_train(data)
    assert (len(index), index.boxes.shape) == (4, (0, 4))


def test_yolo_gives_the_same_index_as_voc(make_data) -> None:
    data = make_data()
    voc = open_train(data)
    to_yolo(data)
    yolo = open_train(data, "yolo")
    np.testing.assert_array_equal(voc.boxes, yolo.boxes)
    np.testing.assert_array_equal(voc.labels, yolo.labels)
    np.testing.assert_array_equal(voc.offsets, yolo.offsets)


def test_yolo_image_without_label_file_has_no_objects(make_data) -> None:
    """Fault of the predecessor: a YOLO file that is missing crashed."""
    data = make_data()
    to_yolo(data)
    (data.root / "train/labels/train_1.txt").unlink()
    index = open_train(data, "yolo")
    assert np.diff(index.offsets).tolist() == [1, 0, 3, 0]
    assert index.report.lines() == ["no labels, taken as without objects: 1 (train_1.jpg)"]


def test_one_bad_box_leaves_the_others(make_data) -> None:
    """Faults of the predecessor: one bad box dropped the whole image, or raised in the middle of an epoch."""
    data = make_data()
    labels = data.root / "train" / "labels"
    add_object(labels / "train_0.xml", "red", (5, 5, 5, 5))
    add_object(labels / "train_0.xml", "red", (30, 30, 10, 10))
    add_object(labels / "train_1.xml", "red", (-40, 10, 20, 20))
    add_object(labels / "train_2.xml", "red", (500, 10, 520, 20))
    add_object(labels / "train_3.xml", "green", (80, 64, 81, 65))
    index = open_train(data)
    assert np.diff(index.offsets).tolist() == [2, 3, 3, 1]
    assert index.report.lines() == [
        "boxes dropped: 2 (train_0.jpg: no area, dropped, train_2.jpg: outside the image, dropped)",
        "boxes repaired: 2 (train_0.jpg: corners swapped, train_1.jpg: clipped to the image)",
    ]
    assert index.boxes[index.rows(1)][-1].tolist() == [0, 9, 20, 20]


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PNG", ".bmp", ".tif", ".webp", ".ppm"])
def test_image_suffixes_of_any_kind_and_case(make_data, suffix: str) -> None:
    """Fault of the predecessor: .PNG .JPEG .bmp .tif .webp were silently ignored."""
    data = make_data()
    old = data.root / "train/images/train_1.jpg"
    image = cv2.imread(str(old))
    old.unlink()
    encoded = cv2.imencode(suffix, image)[1]
    old.with_suffix(suffix).write_bytes(encoded.tobytes())
    index = open_train(data)
    assert f"train_1{suffix}" in list(index.files.names)
    assert len(index.boxes) == 6


def test_brackets_spaces_dots_and_umlauts_in_names(make_data) -> None:
    """Fault of the predecessor: paths with [ ] were silently ignored."""
    data = make_data()
    for kind, suffix in (("images", ".jpg"), ("labels", ".xml")):
        folder = data.root / "train" / kind
        (folder / f"train_1{suffix}").rename(folder / f"a [1] ü.v2 b{suffix}")
    moved = data.root.with_name("data [x] é")
    shutil.copytree(data.root, moved)
    data.rewrite(TRAIN_DIR_IMAGES=str(moved / "train/images"), TRAIN_DIR_LABELS=str(moved / "train/labels"))
    index = open_train(data)
    assert "a [1] ü.v2 b.jpg" in list(index.files.names)
    assert len(index.boxes) == 6


def test_images_and_labels_may_share_a_folder(make_data) -> None:
    data = make_data()
    for xml in (data.root / "train/labels").iterdir():
        xml.rename(data.root / "train/images" / xml.name)
    data.rewrite(TRAIN_DIR_LABELS=str(data.root / "train/images"))
    assert len(open_train(data).boxes) == 6


def exif_image(path: Path, orientation: int) -> None:
    """Image of 64 x 80 px that viewers display rotated."""
    image = Image.new("RGB", (80, 64), (128, 128, 128))
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize(
    ("claimed", "size", "as_stored"),
    [
        ((64, 80), (64, 80), True),  # the label file means the stored orientation
        ((80, 64), (80, 64), False),
        (None, (80, 64), False),  # labeling tools show images as viewers do
    ],
)
def test_exif_rotation_follows_the_size_in_the_label_file(make_data, claimed, size, as_stored) -> None:
    """Fault of the predecessor: EXIF rotation turned the image and not the boxes."""
    data = make_data()
    exif_image(data.root / "train/images/train_0.jpg", 6)
    xml = data.root / "train/labels/train_0.xml"
    old = "<width>80</width>\n    <height>64</height>"
    assert old in xml.read_text()
    new = "" if claimed is None else f"<width>{claimed[1]}</width><height>{claimed[0]}</height>"
    xml.write_text(xml.read_text().replace(old, new))
    index = open_train(data)
    assert tuple(index.sizes[0]) == size
    assert index.as_stored[0] == as_stored


def test_wrong_size_in_the_label_file_is_noted(make_data) -> None:
    data = make_data()
    xml = data.root / "train/labels/train_0.xml"
    xml.write_text(xml.read_text().replace("<width>80</width>", "<width>90</width>"))
    assert open_train(data).report.lines() == ["image size in the label file differs from the image: 1 (train_0.xml)"]


def test_missing_folder_is_named(make_data) -> None:
    """Fault of the predecessor: a missing folder meant "num_samples=0"."""
    data = make_data()
    shutil.rmtree(data.root / "train/images")
    with pytest.raises(DataError, match=r"data\.yaml: TRAIN_DIR_IMAGES is .*which does not exist"):
        open_train(data)


def test_empty_folder_is_named(make_data) -> None:
    data = make_data()
    for path in (data.root / "train/images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no images in .*: is TRAIN_DIR_IMAGES right"):
        open_train(data)


def test_labels_of_the_other_type_say_what_to_type(make_data) -> None:
    data = make_data()
    with pytest.raises(DataError, match=r"no \.txt file for any image, but 4 \.xml files: add --label-type pascal_voc"):
        open_train(data, "yolo")
    to_yolo(data)
    with pytest.raises(DataError, match=r"but 4 \.txt files: add --label-type yolo"):
        open_train(data)


def test_labels_with_other_names_are_told_apart_from_other_types(make_data) -> None:
    data = make_data()
    for path in list((data.root / "train/labels").iterdir()):
        path.rename(path.with_name("x" + path.name))
    with pytest.raises(DataError, match="labels are matched by file name"):
        open_train(data)


def test_unknown_class_is_named_with_its_first_file_its_count_and_the_nearest_name(make_data) -> None:
    """Fault of the predecessor: an unknown class raised without a file name."""
    data = make_data()
    labels = data.root / "train/labels"
    add_object(labels / "train_1.xml", "reed", (5, 5, 9, 9))
    add_object(labels / "train_2.xml", "reed", (5, 5, 9, 9))
    add_object(labels / "train_2.xml", "blue", (5, 5, 9, 9))
    with pytest.raises(DataError) as error:
        open_train(data)
    assert str(error.value) == (
        f"{labels}: labels of 2 class(es) that CLASSES in {data.yaml} does not have: "
        "'reed' (2 boxes, first in train_1.xml; did you mean 'red'?), 'blue' (1 boxes, first in train_2.xml); "
        "CLASSES has 2: red, green; correct CLASSES, or drop these boxes with --drop-unknown"
    )
    index = open_index(load_data_config(data.yaml), "train", "pascal_voc", drop_unknown=True)
    assert np.diff(index.offsets).tolist() == [1, 2, 3, 0]
    assert index.report.lines() == [
        "label files with boxes of 'reed', which CLASSES lacks; did you mean 'red'?, dropped: 2 "
        "(train_1.xml: 1, train_2.xml: 1)",
        "label files with boxes of 'blue', which CLASSES lacks, dropped: 1 (train_2.xml: 1)",
    ]


def test_unknown_yolo_class_is_named_with_its_first_file(make_data) -> None:
    """Fault of the predecessor: a class >= NC became an index error in the loss."""
    data = make_data()
    to_yolo(data)
    (data.root / "train/labels/train_3.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"class 7 \(1 boxes, first in train_3\.txt\); CLASSES has 2: red, green"):
        open_train(data, "yolo")


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every way to decode an image fail."""

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    for name in (
        "cv2.imdecode",
        "cv2.imread",
        "simplejpeg.decode_jpeg",
        "PIL.Image.Image.load",
        "PIL.ImageFile.ImageFile.load",
    ):
        monkeypatch.setattr(name, decode)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp"])
def test_ground_truth_is_read_without_decoding_any_image(make_data, monkeypatch, suffix: str) -> None:
    """Fault of the predecessor: the ground truth was rebuilt by decoding every validation image each epoch."""
    data = make_data()
    for path in (data.root / "train/images").iterdir():
        Image.open(path).save(path.with_suffix(suffix))
        if suffix != ".jpg":
            path.unlink()
    no_decoding(monkeypatch)
    index = open_train(data)
    assert index.sizes.tolist() == [[64, 80]] * 4
    with pytest.raises(AssertionError, match="an image was decoded"):
        index.pixels(0)


def test_ground_truth_of_the_metric_comes_from_the_index_not_from_images(make_data) -> None:
    """Fault of the predecessor: the ground truth was rebuilt by decoding every validation image each epoch."""
    data = make_data()
    index = open_train(data)
    shutil.rmtree(data.root)
    found = {
        i: Detections(index.boxes[index.rows(i)], np.ones(int(np.diff(index.offsets)[i]), np.float32), labels)
        for i in range(len(index))
        for labels in [index.labels[index.rows(i)]]
    }
    for _ in range(2):  # epochs
        assert coco_metrics(index, found).ap == pytest.approx(1)


def test_an_image_replaced_after_indexing_is_refused(make_data) -> None:
    """The boxes of such an image would silently be wrong."""
    data = make_data()
    index = open_train(data)
    path = data.root / "train/images/train_1.jpg"
    assert index.pixels(1).shape == (64, 80, 3)
    Image.new("RGB", (90, 70)).save(path)
    with pytest.raises(DataError, match=r"train_1\.jpg: decodes to 90x70, its header said 80x64 when .* start again"):
        index.pixels(1)


def test_file_names_that_are_not_utf8(make_data) -> None:
    data = make_data()
    for kind, suffix in (("images", ".jpg"), ("labels", ".xml")):
        folder = os.fsencode(data.root / "train" / kind)
        try:
            os.rename(
                os.path.join(folder, f"train_1{suffix}".encode()), os.path.join(folder, b"\xff" + suffix.encode())
            )
        except OSError:
            pytest.skip("this disk takes UTF-8 alone")
    add_object(data.root / "train/labels" / os.fsdecode(b"\xff.xml"), "red", (5, 5, 5, 5))
    index = open_train(data)
    (i,) = [index.files.names.index(os.fsdecode(b"\xff.jpg"))]
    assert index.pixels(int(i)).shape == (64, 80, 3)
    assert len(index.boxes[index.rows(int(i))]) == 2
    index.log_summary("training")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as an image"), (b"not an image", "cannot be read as an image"), (None, "cut off")],
)
def test_unreadable_images_are_left_out_and_named(make_data, content, message) -> None:
    """Faults of the predecessor: corrupt images raised without a name, truncated ones trained gray."""
    data = make_data()
    path = data.root / "train/images/train_2.jpg"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    index = open_train(data)
    assert list(index.files.names) == ["train_0.jpg", "train_1.jpg", "train_3.jpg"]
    assert len(index.boxes) == 3
    (line,) = index.report.lines()
    assert re.search(rf"left out: 1 \(.*train_2\.jpg: .*{message}", line)


def test_images_whose_labels_cannot_be_read_are_left_out(make_data) -> None:
    """Images with unreadable labels are not taken as images without objects."""
    data = make_data()
    for i in (0, 2):
        (data.root / f"train/labels/train_{i}.xml").write_text("<annotation>")
    index = open_train(data)
    assert list(index.files.names) == ["train_1.jpg", "train_3.jpg"]
    (line,) = index.report.lines()
    assert re.search(r"left out: 2 \(.*train_0\.xml.*, .*train_2\.xml", line)


def test_an_unreadable_image_hides_no_fault_of_its_labels(make_data) -> None:
    data = make_data()
    (data.root / "train/images/train_2.jpg").write_bytes(b"")
    (data.root / "train/labels/train_2.xml").write_text("<annotation>")
    (line,) = open_train(data).report.lines()
    assert re.search(r"left out: 2 \(.*train_2\.jpg: .*, .*train_2\.xml", line)


def test_a_split_of_which_nothing_can_be_read(make_data) -> None:
    data = make_data()
    for path in (data.root / "train/images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"train/images: no image can be used: .*train_0\.jpg: .*; .*train_3\.jpg: "):
        open_train(data)


def nest(data: DataSet, folders: dict[str, str], kinds: tuple[str, ...] = ("images", "labels")) -> None:
    """Move the files of these stems into folders."""
    for kind, suffix in (("images", ".jpg"), ("labels", ".xml")):
        for name, folder in folders.items() if kind in kinds else ():
            target = data.root / "train" / kind / folder
            target.mkdir(parents=True, exist_ok=True)
            (data.root / "train" / kind / f"{name}{suffix}").rename(target / f"{name.rpartition('/')[2]}{suffix}")


@pytest.mark.parametrize("kinds", [("images", "labels"), ("images",), ("labels",)])
def test_nested_folders(make_data, kinds: tuple[str, ...]) -> None:
    """Images, labels, or both in subfolders: if one kind is in a flat folder, file names match."""
    data = make_data()
    flat = open_train(data)
    nest(data, {"train_1": "a/b c", "train_2": "[d].e"}, kinds)
    (data.root / "train/images/.cache").mkdir()
    (data.root / "train/images/.cache/train_0.jpg").write_bytes(b"")
    nested = open_train(data)
    assert nested.report.lines() == []
    assert sorted(path.name for path in nested.files) == list(flat.files.names)
    for i in range(4):
        rows = nested.rows([path.name for path in nested.files].index(f"train_{i}.jpg"))
        np.testing.assert_array_equal(nested.boxes[rows], flat.boxes[flat.rows(i)])


def test_the_same_name_in_two_folders(make_data) -> None:
    data = make_data()
    nest(data, {"train_0": "a", "train_1": "b"})
    for kind, suffix in (("images", ".jpg"), ("labels", ".xml")):
        (data.root / f"train/{kind}/b/train_1{suffix}").rename(data.root / f"train/{kind}/b/train_0{suffix}")
    index = open_train(data)
    assert list(index.files.names) == ["a/train_0.jpg", "b/train_0.jpg", "train_2.jpg", "train_3.jpg"]
    assert np.diff(index.offsets).tolist() == [1, 2, 3, 0]
    (data.root / "train/labels/b/train_0.xml").unlink()
    index = open_train(data)
    assert np.diff(index.offsets).tolist() == [1, 0, 3, 0]  # not that of the other folder
    assert index.report.lines() == ["no labels, taken as without objects: 1 (b/train_0.jpg)"]


def test_reading_a_split_raises_nothing_and_mends_nothing(make_data) -> None:
    data = make_data()
    add_object(data.root / "train/labels/train_0.xml", "reed", (30, 30, 10, 10))
    (data.root / "train/labels/train_1.xml").write_text("")
    (data.root / "train/labels/train_2.xml").unlink()
    reading = read_files(find_split(load_data_config(data.yaml), "train", "pascal_voc"), "Reading")
    assert [path.name for path in reading.images] == ["train_0.jpg", "train_2.jpg", "train_3.jpg"]
    assert reading.label_names == ["train_0.xml", None, "train_3.xml"]
    assert [(broken.image.name, broken.label_name) for broken in reading.unreadable] == [("train_1.jpg", "train_1.xml")]
    assert reading.unknown == {"'reed'": [0]}
    assert reading.boxes[1].tolist() == [30, 30, 9, 9]
    assert (reading.image_of_box.tolist(), reading.labels[1]) == ([0, 0], UNKNOWN)


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not beside the project")
def test_bccd_has_two_bad_boxes(tmp_path: Path) -> None:
    splits = {
        f"{split.upper()}_DIR_{kind.upper()}": str(BCCD / split / folder)
        for split in ("train", "valid")
        for kind, folder in (("images", "images"), ("labels", "annotations"))
    }
    data = DataSet(BCCD, tmp_path / "bccd.yaml")
    data.yaml.write_text("{}")
    data.rewrite(CLASSES=["__background__", "RBC", "WBC", "Platelets"], **splits)
    config = load_data_config(data.yaml)
    train, valid = (open_index(config, split, "pascal_voc") for split in ("train", "valid"))
    assert (len(train), len(train.boxes)) == (205, 2804)
    assert len(valid) == 87
    assert train.report.lines() == ["boxes dropped: 1 (BloodImage_00343.jpg: no area, dropped)"]
    assert valid.report.lines() == ["boxes dropped: 1 (BloodImage_00338.jpg: no area, dropped)"]


def test_hints_are_given_for_the_first_few_names() -> None:
    """Comparing 2,000 unknown classes with 2,000 known ones took a minute."""
    unknown = [f"'clas_{i}'" for i in range(30)]
    hints = class_hints(unknown, [f"class_{i}" for i in range(30)])
    assert hints["'clas_3'"] == "; did you mean 'class_3'?"
    assert [name for name in unknown if hints[name]] == unknown[:20]
