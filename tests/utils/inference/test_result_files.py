import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from utils.detect.detections import Detections
from utils.inference.result_files import DetectionRecord, write_boxes_csv, write_coco_json


@pytest.fixture
def record() -> DetectionRecord:
    record = DetectionRecord(("__background__", "cat", "dog"))
    record.add("a.jpg", 100, 200, Detections(
        np.array([[10.5, 20, 30, 40], [0, 0, 200, 100]], np.float32), np.array([0.9, 0.5], np.float32), np.array([2, 1])
    ))  # fmt: skip
    record.add("empty.jpg", 50, 60, Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, int)))
    record.add("b.jpg", 100, 200, Detections(
        np.array([[1, 2, 3, 4]], np.float32), np.array([0.75], np.float32), np.array([1])
    ))  # fmt: skip
    return record


def test_csv_has_the_predecessors_columns(tmp_path: Path, record: DetectionRecord) -> None:
    write_boxes_csv(tmp_path / "boxes.csv", record)
    rows = list(csv.reader(io.StringIO((tmp_path / "boxes.csv").read_text())))
    assert rows[0] == ["image", "label", "xmin", "xmax", "ymin", "ymax", "width", "height", "area"]
    assert rows[1] == ["a.jpg", "dog", "10.50", "30.00", "20.00", "40.00", "19.50", "20.00", "390.00"]
    assert [row[0] for row in rows[1:]] == ["a.jpg", "a.jpg", "b.jpg"]


def test_json_is_coco(tmp_path: Path, record: DetectionRecord) -> None:
    """Fault of the predecessor: every image had id 1, there were no scores, and category ids were wrong."""
    write_coco_json(tmp_path / "log.json", record)
    content = json.loads((tmp_path / "log.json").read_text())
    assert [(i["id"], i["file_name"], i["height"], i["width"]) for i in content["images"]] == [
        (1, "a.jpg", 100, 200), (2, "empty.jpg", 50, 60), (3, "b.jpg", 100, 200),
    ]  # fmt: skip
    assert [(a["id"], a["image_id"], a["category_id"]) for a in content["annotations"]] == [
        (1, 1, 2),
        (2, 1, 1),
        (3, 3, 1),
    ]
    assert content["annotations"][0]["bbox"] == [10.5, 20.0, 19.5, 20.0]
    assert content["annotations"][0]["area"] == pytest.approx(390)
    assert content["annotations"][2]["score"] == pytest.approx(0.75)
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "cat"), (2, "dog")]
    coco = COCO(str(tmp_path / "log.json"))
    assert len(coco.getAnnIds(imgIds=[1])) == 2
