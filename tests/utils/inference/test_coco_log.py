"""COCO json that grows on the disk."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import full_disk
from utils.detect.detections import Detections
from utils.inference.coco_log import CocoLog
from utils.video.annotators import FrameLog
from utils.video.types import Frame

CLASSES = ("__background__", "cat", "N/A", "dog")


def found(count: int) -> Detections:
    boxes = np.tile(np.array([1.5, 2, 11.5, 22], np.float32), (count, 1))
    return Detections(boxes, np.full(count, 0.5, np.float32), np.full(count, 3))


def test_nothing_at_all_is_valid(tmp_path: Path) -> None:
    CocoLog(tmp_path / "log.json", CLASSES).close()
    content = json.loads((tmp_path / "log.json").read_text())
    assert (content["images"], content["annotations"]) == ([], [])
    assert [c["name"] for c in content["categories"]] == ["cat", "dog"]


def test_frames_have_their_number_and_moment(tmp_path: Path) -> None:
    log = FrameLog(CocoLog(tmp_path / "log.json", CLASSES), lambda detections: detections.filtered(0.4))
    for number in range(3):
        log.add(Frame(number, number / 3, np.zeros((40, 60, 3), np.uint8)), found(number))
    assert os.listdir(tmp_path) == [], "it is there whole, or not at all"
    log.close()
    content = json.loads((tmp_path / "log.json").read_text())
    assert content["images"][2] == {
        "id": 3, "file_name": "frame_000003", "height": 40, "width": 60, "frame": 2, "time": 0.666667,
    }  # fmt: skip
    assert [(a["id"], a["image_id"]) for a in content["annotations"]] == [(1, 2), (2, 3), (3, 3)]
    assert content["annotations"][0]["bbox"] == [1.5, 2, 10, 20]
    assert content["annotations"][0]["category_id"] == 3


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CocoLog(tmp_path / "no" / "log.json", CLASSES)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """Fault: the error of an unnamed file was a traceback."""
    log = CocoLog(tmp_path / "log.json", CLASSES)
    log.add("a.jpg", 40, 60, found(2))
    with full_disk(), pytest.raises(OSError, match=r"log\.json") as error:
        log.close()
    assert error.value.filename == str(tmp_path / "log.json")
    assert os.listdir(tmp_path) == []
    log = CocoLog(tmp_path / "log.json", CLASSES)
    with full_disk(), pytest.raises(OSError, match=r"log\.json"):
        log.add("a.jpg", 40, 60, found(200))
    with full_disk(), pytest.raises(OSError, match=r"log\.json"):
        log.close()
