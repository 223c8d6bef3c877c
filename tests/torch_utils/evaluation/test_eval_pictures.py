from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.scenes import index_of
from torch_utils.evaluation.detection_analysis import BACKGROUND, CORRECT, ImageErrors
from torch_utils.evaluation.eval_pictures import contact_sheet, error_picture, error_title
from utils.detect.detections import Detections
from utils.images.file_lists import FileList
from utils.images.image_files import write_image
from utils.labels.index import LabelIndex

BOXES = np.array([[10, 10, 40, 30], [50, 20, 80, 50]], np.float32)
ERRORS = ImageErrors(
    Detections(BOXES, np.array([0.9, 0.8], np.float32), np.array([1, 2])),
    np.array([CORRECT, BACKGROUND]),
    np.array([False, True]),
)


def index_with(folder: Path, height: int, width: int, scale: float = 1, name: str = "a.png") -> LabelIndex:
    index = index_of([(BOXES * scale, np.array([1, 2]), np.array([False, False]))])
    write_image(folder / name, np.full((height, width, 3), 90, np.uint8))
    return replace(index, files=FileList(folder, [name]), sizes=np.array([[height, width]]))


@pytest.mark.parametrize(("height", "width", "scale"), [(60, 100, 1), (600, 1000, 10), (2000, 300, 1)])
def test_any_size_gives_two_pictures_side_by_side(tmp_path: Path, height: int, width: int, scale: float) -> None:
    index = index_with(tmp_path, height, width, scale)
    errors = replace(ERRORS, detections=replace(ERRORS.detections, boxes=BOXES * scale))
    picture = error_picture(index, 0, errors)
    assert max(picture.shape[0], picture.shape[1] / 2) == pytest.approx(560, abs=6)
    half = picture.shape[1] // 2
    for side in (picture[:, :half], picture[:, half:]):
        assert (np.ptp(side.reshape(-1, 3), axis=0) > 50).any()  # something is drawn


def test_boxes_lie_where_they_belong(tmp_path: Path) -> None:
    picture = error_picture(index_with(tmp_path, 60, 100), 0, ERRORS).astype(int)
    scale = 5.6
    for left in (0, 564):
        x, y = left + round(25 * scale), round(30 * scale)  # the middle of the first box's lower edge
        around = picture[y - 4 : y + 4, x]
        assert np.abs(around - 90).max() > 50
        assert np.abs(picture[y + 8 : y + 20, x] - 90).max() < 3


def test_titles_say_what_is_wrong(tmp_path: Path) -> None:
    assert error_title(index_with(tmp_path, 60, 100), 0, ERRORS) == "a.png: 1 missed, 1 background"
    long = error_title(index_with(tmp_path, 60, 100, name="n" * 90 + ".png"), 0, ERRORS)
    assert long == f"…{'n' * 43}.png: 1 missed, 1 background"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_contact_sheets(count: int) -> None:
    pictures = [("the same: $x_{", np.full((40, 100 + i, 3), 40 * i, np.uint8)) for i in range(count)]
    sheet = cv2.imdecode(np.frombuffer(contact_sheet(pictures), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape[1] == (850 if count == 1 else 1700)
