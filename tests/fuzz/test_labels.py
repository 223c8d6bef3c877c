"""Read damaged label files: 10,000 mutations of each format."""

import json
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np

from tests.support.fuzzing.guard import answer, fuzz, is_one_line, mutations
from tests.support.fuzzing.mutations import damage_bytes, damage_json, damage_tree, damage_words, encode
from utils.labels.boxes import repair_boxes
from utils.labels.coco_json import CocoLabels
from utils.labels.readers import UNKNOWN, LabelFile, read_voc, read_yolo

NEIGHBORS = 2_000
LABEL_OF = {"cat": 1, "dog": 2}
SIZE = (100, 200)  # height, width


def check_labels(labels: LabelFile) -> None:
    """Check the contract of LabelFile, and that utils/labels/boxes.py accepts its boxes."""
    assert len(labels.boxes) == len(labels.labels) == len(labels.ignored)
    for box in labels.boxes:
        assert type(box) is tuple
        assert [type(corner) for corner in box] == [float] * 4
    assert all(type(label) is int and label in (UNKNOWN, 1, 2) for label in labels.labels)
    assert all(type(ignored) is bool for ignored in labels.ignored)
    assert len(labels.unknown) == labels.labels.count(UNKNOWN)
    assert all(is_one_line(text, 200) for text in (*labels.unknown, *labels.notes)), (labels.unknown, labels.notes)
    assert labels.size is None or all(type(side) is int and 0 < side < 1 << 31 for side in labels.size)
    repaired, keep, _ = repair_boxes(np.array(labels.boxes), np.tile(SIZE, (len(labels.boxes), 1)))
    assert np.isfinite(repaired[keep]).all()


def voc_file(boxes: list[tuple[int, int, int, int]], head: str = "") -> str:
    things = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{i % 2}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}"
        f"</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox><part><name>ear</name></part></object>\n"
        for i, (name, (x1, y1, x2, y2)) in enumerate(zip(["cat", "dog", "cow"], boxes, strict=False))
    )
    size = "<size><width>200</width><height>100</height><depth>3</depth></size>"
    return f"{head}<annotation>\n<filename>a.jpg</filename>{size}\n{things}</annotation>\n"


VOC_BOXES = [(11, 21, 30, 40), (1, 2, 200, 100), (5, 6, 7, 8)]
VOC = voc_file(VOC_BOXES, '<?xml version="1.0" encoding="utf-8"?>\n')


def damaged_voc(number: int) -> bytes:
    chance = Random(number)
    if number % 3 == 0:
        return damage_bytes(VOC.encode(), chance, voc_file(VOC_BOXES[1:]).encode())
    root = ElementTree.fromstring(VOC)
    damage_tree(root, chance)
    text = ElementTree.tostring(root, "unicode")
    declared = chance.choice(("", "", "utf-8", "UTF-16", "gbk", "latin-1", "Shift_JIS", "klingon", "utf-7", "ascii"))
    data = encode((f'<?xml version="1.0" encoding="{declared}"?>' if declared else "") + text, chance)
    return damage_bytes(data, chance) if number % 9 == 1 else data


@mutations(10_000)
def test_voc(tmp_path: Path, count: int) -> None:
    read = []

    def check(path: Path, _: int) -> None:
        labels = answer(lambda: read_voc(path, SIZE, LABEL_OF), path)
        if labels:
            check_labels(labels)
            read.append(len(labels.boxes))

    fuzz(tmp_path / "a.xml", count, damaged_voc, check)
    assert len(read) > count / 3, "most of the damage gets past the parser"


def yolo_row(number: int) -> str:
    return f"{number % 2} 0.{number + 1} 0.5 0.25 0.125"


ROWS = [yolo_row(number) for number in range(6)]


def damaged_yolo(number: int) -> bytes:
    chance = Random(number)
    if number % 3 == 0:
        return damage_bytes("\n".join(ROWS).encode(), chance, b"0 0.1 0.1 0.2 0.2 0.3 0.4\r\n1 1 1 1 1 0.5")
    rows = [row.split() for row in ROWS]
    for at in chance.sample(range(len(rows)), chance.randint(1, 3)):
        rows[at] = damage_words(rows[at], chance)
    ends = chance.choice(("\n", "\n", "\r\n", "\r", "\n\n"))
    return encode(ends.join(map(chance.choice((" ", " ", "\t", ", ")).join, rows)), chance)


@mutations(10_000)
def test_yolo(tmp_path: Path, count: int) -> None:
    def check(path: Path, _: int) -> None:
        labels = answer(lambda: read_yolo(path, SIZE, LABEL_OF), path)
        assert labels is not None, "one bad row is no reason to refuse the file"
        check_labels(labels)

    fuzz(tmp_path / "a.txt", count, damaged_yolo, check)


COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "train2017/a.jpg", "height": 100, "width": 200, "license": 1},
        {"id": 9, "file_name": "b.jpg", "height": 64, "width": 80},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 90, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 80, 64], "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ],
    "categories": [{"id": 3, "name": "cat", "supercategory": "x"}, {"id": 90, "name": "dog"}],
}
COCO_TEXT = json.dumps(COCO)


def damaged_coco(number: int) -> bytes:
    chance = Random(number)
    if number % 3 == 0:
        return damage_bytes(COCO_TEXT.encode(), chance, COCO_TEXT.encode())
    content = json.loads(COCO_TEXT)
    damage_json(content, chance)
    data = encode(json.dumps(content, ensure_ascii=chance.random() < 0.5), chance)
    return damage_bytes(data, chance) if number % 9 == 1 else data


@mutations(10_000)
def test_coco(tmp_path: Path, count: int) -> None:
    read = []

    def check(path: Path, _: int) -> None:
        source = answer(lambda: CocoLabels(path, LABEL_OF), path)
        if source is None:
            return
        assert all(is_one_line(note, 200) for note in source.notes), source.notes
        for number in range(len(source.names)):
            check_labels(source.read(number, SIZE))
            read.append(number)

    fuzz(tmp_path / "a.json", count, damaged_coco, check)
    assert len(read) > count / 3, "most of the damage gets past the parser"


@mutations(NEIGHBORS)
def test_voc_objects_next_to_a_damaged_one_are_read(tmp_path: Path, count: int) -> None:
    boxes = [(11, 21, 101 + i, 40) for i in range(3)]

    def make(number: int) -> bytes:
        root = ElementTree.fromstring(voc_file(boxes))
        damage_tree(root, Random(number), within=root.findall("object")[number % 3])
        return ElementTree.tostring(root)

    def check(path: Path, number: int) -> None:
        labels = read_voc(path, SIZE, LABEL_OF)
        found = set(zip(labels.boxes, labels.labels, labels.ignored, strict=True))
        good = {0, 1, 2} - {number % 3}
        assert found >= {((10.0, 20.0, 101.0 + i, 40.0), (1, 2, UNKNOWN)[i], i == 1) for i in good}

    fuzz(tmp_path / "a.xml", count, make, check)


@mutations(NEIGHBORS)
def test_yolo_rows_next_to_damaged_ones_are_read(tmp_path: Path, count: int) -> None:
    good = [(labels.labels[0], labels.boxes[0]) for labels in (yolo(tmp_path, row) for row in ROWS)]

    def damaged(number: int) -> set[int]:
        return set(Random(number).sample(range(len(ROWS)), 1 + number % 4))

    def make(number: int) -> bytes:
        chance = Random(-number)
        rows = [
            " ".join(damage_words(row.split(), chance)) if i in damaged(number) else row for i, row in enumerate(ROWS)
        ]
        return "\n".join(rows).encode()

    def check(path: Path, number: int) -> None:
        labels = read_yolo(path, SIZE, LABEL_OF)
        kept = [one for i, one in enumerate(good) if i not in damaged(number)]
        assert [one for one in zip(labels.labels, labels.boxes, strict=True) if one in kept] == kept

    fuzz(tmp_path / "a.txt", count, make, check)


def yolo(folder: Path, text: str) -> LabelFile:
    (folder / "one.txt").write_text(text)
    return read_yolo(folder / "one.txt", SIZE, LABEL_OF)


@mutations(NEIGHBORS)
def test_coco_annotations_next_to_a_damaged_one_are_read(tmp_path: Path, count: int) -> None:
    good = {1: ((1, 2, 4.5, 6), 2, False), 2: ((5, 6, 12, 14), 1, True), 3: ((0, 0, 80, 64), 1, False)}

    def make(number: int) -> bytes:
        content = json.loads(COCO_TEXT)
        damage_json(content["annotations"][number % 3], Random(number))
        return json.dumps(content).encode()

    def check(path: Path, number: int) -> None:
        source = CocoLabels(path, LABEL_OF)
        files = [source.read(i, SIZE) for i in range(2)]
        found = {one for file in files for one in zip(file.boxes, file.labels, file.ignored, strict=True)}
        assert found >= {box for i, box in good.items() if i != number % 3 + 1}

    fuzz(tmp_path / "a.json", count, make, check)


@mutations(NEIGHBORS)
def test_coco_images_next_to_a_damaged_one_keep_their_boxes(tmp_path: Path, count: int) -> None:
    """Two images keep their boxes, unless the damage gives both the same id, which is noted."""

    def make(number: int) -> bytes:
        content = json.loads(COCO_TEXT)
        damage_json(content["images"][1], Random(number))
        return json.dumps(content).encode()

    def check(path: Path, number: int) -> None:
        source = CocoLabels(path, LABEL_OF)
        assert source.names[0] == "train2017/a.jpg"
        assert source.read(0, SIZE).boxes == [(5, 6, 12, 14)] or "images[1]" in source.notes[0]

    fuzz(tmp_path / "a.json", count, make, check)
