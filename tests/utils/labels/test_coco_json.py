import contextlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import DataError
from utils.labels.coco_json import CocoLabels
from utils.labels.readers import UNKNOWN

LABEL_OF = {"red": 1, "green": 2}
CONTENT = {
    "images": [
        {"id": 7, "file_name": "train2017/a.jpg", "height": 64, "width": 80},
        {"id": 9, "file_name": "b.jpg", "height": 64, "width": 80},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 90, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 80, 64]},
    ],
    "categories": [{"id": 3, "name": "red"}, {"id": 90, "name": "green"}],
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps({**CONTENT, **changes}))
    return path


def read(path: Path, image: str):
    source = CocoLabels(path, LABEL_OF)
    return source.read(int(source.match([image])[0]), (64, 80))


def test_boxes_by_image_with_gaps_between_categories(tmp_path: Path) -> None:
    labels = read(write(tmp_path), "somewhere/b.jpg")
    assert labels.boxes == [(1, 2, 4.5, 6), (0, 0, 80, 64)]
    assert labels.labels == [2, 1]
    assert labels.ignored == [False, False]
    assert labels.size == (64, 80)


def test_crowds_are_ignored_boxes(tmp_path: Path) -> None:
    assert read(write(tmp_path), "a.jpg").ignored == [True]


def test_of_many_notes_of_a_kind_the_first_are_kept(tmp_path: Path) -> None:
    """Empty entries took a hundred times the file's size."""
    again = [{"id": 7, "file_name": f"{k}.jpg"} for k in range(1500)]
    source = CocoLabels(write(tmp_path, annotations=[{}] * 1200, images=again), LABEL_OF)
    assert len(source.notes) == 2002
    assert source.notes[0] == "images[1] has id 7 again, dropped"
    assert source.notes[1000] == "annotations[0] is of no image in the file, dropped"
    assert source.notes[2000:] == [
        "499 more of images: each has id ... again, dropped",
        "200 more of annotations: each is of no image in the file, dropped",
    ]


def test_which_images_have_labels(tmp_path: Path) -> None:
    source = CocoLabels(write(tmp_path), LABEL_OF)
    assert list(source.names) == ["train2017/a.jpg", "b.jpg"]
    assert source.label_name(1) == "instances.json: b.jpg"
    assert source.match(["a.jpg", "c.jpg", "b.jpg"]).tolist() == [0, -1, 1]


def test_unknown_categories_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        categories=[{"id": 3, "name": "blue"}],
        annotations=[{"image_id": 7, "category_id": k, "bbox": [1, 1, 2, 2]} for k in (3, 4, None)],
    )
    labels = read(path, "a.jpg")
    assert labels.labels == [UNKNOWN] * 3
    assert labels.unknown == ["'blue'", "category 4", "category None"]


def test_entries_that_make_no_sense_are_left_out_and_noted(tmp_path: Path) -> None:
    good = {"image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2]}
    path = write(
        tmp_path,
        images=[*CONTENT["images"], {"id": 8}, {"id": 10, "file_name": ".\\train2017/a.jpg"}],
        annotations=[
            good, {**good, "bbox": [1, 1, 2]}, {**good, "bbox": None}, {**good, "bbox": [1, 1, "2", 2]},
            {**good, "image_id": 5}, {**good, "image_id": [7]}, {**good, "bbox": [10**400, 1, 2, 2]},
        ],
    )  # fmt: skip
    source = CocoLabels(path, LABEL_OF)
    assert source.notes == [
        "images[2] has no file_name, dropped",
        "images[3] is train2017/a.jpg again, dropped",
        "annotations[1] has no bbox of four numbers, dropped",
        "annotations[2] has no bbox of four numbers, dropped",
        "annotations[3] has no bbox of four numbers, dropped",
        "annotations[4] is of no image in the file, dropped",
        "annotations[5] is of no image in the file, dropped",
    ]
    boxes = source.read(0, (64, 80)).boxes
    assert boxes[0] == (1, 1, 3, 3)
    assert len(boxes) == 2  # the other is no number, which utils/labels/boxes.py drops
    assert boxes[1][0] != boxes[1][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: not valid JSON \(Expecting value\)"),
        ('{"images": [\n]', ":2: not valid JSON"),
        ("[1]", "a list, expected COCO's images, annotations and categories"),
        ('{"images": []}', "annotations is missing or no list"),
        ('{"images": [1], "annotations": [], "categories": []}', "images has a int among its entries"),
        ("[" * 100_000, "not valid JSON"),
        ("1" * 10_000, "not valid JSON"),
        ("\xff", "not valid JSON"),
    ],
)
def test_damaged_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "instances.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances\.json.*" + message) as caught:
        CocoLabels(tmp_path / "instances.json", LABEL_OF)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**32))
def test_mutations_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(json.dumps(CONTENT).encode())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.choice(b'{}[]",:0919eE-. nulltrue\\\xff')
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        source = CocoLabels(path, LABEL_OF)
        for number in range(len(source.names)):
            source.read(number, (64, 80))
