import json
from pathlib import Path

import pytest

from utils.errors import DataError
from utils.labels.data_config import Split
from utils.labels.sources import open_labels

LABEL_OF = {"red": 1}
IMAGES = ["a.jpg", "b.v1.jpg"]
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}],
    "annotations": [],
    "categories": [{"id": 1, "name": "red"}],
}


def write(folder: Path, *names: str) -> Split:
    for name in names:
        text = json.dumps(COCO) if name.endswith(".json") else "<annotation/>" if name.endswith(".xml") else ""
        (folder / name).write_text(text)
    return Split(Path("images"), folder)


def test_files_are_matched_by_name_without_suffix(tmp_path: Path) -> None:
    split = write(tmp_path, "a.XML", "a.xml", "b.v1.xml", "c.xml", "b.xml")
    source, matched = open_labels(split, "pascal_voc", LABEL_OF, IMAGES)
    assert [source.label_name(number) for number in matched] == ["a.XML", "b.v1.xml"]
    assert list(source.names) == ["a.XML", "b.v1.xml", "b.xml", "c.xml"]
    assert source.duplicates == ["a.xml"]


@pytest.mark.parametrize("labels", ["", "x.json"])
def test_coco_is_a_file_or_the_only_one_in_a_folder(tmp_path: Path, labels: str) -> None:
    write(tmp_path, "x.json")
    source, matched = open_labels(Split(Path("images"), tmp_path / labels), "coco", LABEL_OF, IMAGES)
    assert matched.tolist() == [0, -1]
    assert source.label_name(0) == "x.json: a.jpg"


@pytest.mark.parametrize(
    ("files", "label_type", "message"),
    [
        (["a.txt"], "pascal_voc", "no .xml file for any image, but 1 .txt files: add --label-type yolo"),
        (["a.xml"], "yolo", "no .txt file for any image, but 1 .xml files: add --label-type pascal_voc"),
        (["x.json"], "yolo", "no .txt file for any image, but 1 .json files: add --label-type coco"),
        (["a.xml"], "coco", "no .json file, but .xml files: add --label-type pascal_voc"),
        ([], "coco", "no .json file, expected COCO's"),
        (["x.json", "y.json"], "coco", "2 .json files, x.json the first: name one in the YAML"),
        (["c.xml"], "pascal_voc", "no .xml file has the name of an image"),
    ],
)
def test_labels_of_another_type_say_what_to_type(
    tmp_path: Path, files: list[str], label_type: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_labels(write(tmp_path, *files), label_type, LABEL_OF, IMAGES)


def test_a_json_for_other_label_types_and_of_another_split(tmp_path: Path) -> None:
    write(tmp_path, "x.json", "x.bin")
    with pytest.raises(DataError, match=r"expected a folder of \.xml files: add --label-type coco"):
        open_labels(Split(Path("images"), tmp_path / "x.json"), "pascal_voc", LABEL_OF, IMAGES)
    with pytest.raises(DataError, match=r"expected a folder of \.xml files: name the folder"):
        open_labels(Split(Path("images"), tmp_path / "x.bin"), "pascal_voc", LABEL_OF, IMAGES)
    with pytest.raises(DataError, match="is it the file of another split"):
        open_labels(Split(Path("images"), tmp_path), "coco", LABEL_OF, ["z.jpg"])
