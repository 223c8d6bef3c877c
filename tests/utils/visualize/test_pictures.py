from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets import DetectionDataset
from utils.detect.detections import Detections
from utils.errors import DataError
from utils.images.image_files import read_image
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.batch import collate
from utils.loading.size_rule import SizeRule
from utils.visualize.pictures import PREDICTIONS, batch_picture, write_prediction_pictures

THRESHOLD = 0.5
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


@pytest.fixture
def index(make_data) -> LabelIndex:
    """Four images, of which the second is upright."""
    data = make_data()
    cv2.imwrite(str(data.root / "train/images/train_1.jpg"), np.full((90, 40, 3), 128, np.uint8))
    return open_index(load_data_config(data.yaml), "train", "pascal_voc")


def test_batch_picture_holds_every_image(index: LabelIndex) -> None:
    dataset = DetectionDataset(index, SizeRule(64))
    picture = batch_picture(collate([dataset[i] for i in range(3)]), index.classes)
    assert picture.shape[1] > 3 * 64
    assert picture.dtype == np.uint8


def test_portrait_images_are_not_halved(index: LabelIndex, tmp_path: Path) -> None:
    """Fault of the predecessor: portrait images were halved."""
    found = Detections(np.array([(5, 70, 35, 90)], np.float32), np.ones(1, np.float32), np.ones(1, np.int64))
    detections = {**dict.fromkeys(range(4), NOTHING), 1: found}
    write_prediction_pictures(tmp_path, index, detections, threshold=THRESHOLD, single_batch=2)
    shapes = [read_image(tmp_path / f"image_{i}_{batch}.jpg").shape for batch in (0, 1) for i in (0, 1)]
    assert shapes == [(64, 80, 3), (90, 40, 3), (64, 80, 3), (64, 80, 3)]
    upright = read_image(tmp_path / "image_1_0.jpg").astype(int)
    assert np.abs(upright[85:, 5:35] - 128).max() > 60  # the box is in the lowest rows
    assert (tmp_path / PREDICTIONS).is_file()


def test_an_image_replaced_after_indexing_is_refused(index: LabelIndex, tmp_path: Path) -> None:
    Image.new("RGB", (90, 70)).save(index.path(1))
    with pytest.raises(DataError, match=r"train_1\.jpg: decodes to 90x70, its header said 40x90"):
        write_prediction_pictures(tmp_path, index, {1: NOTHING}, threshold=THRESHOLD)


def test_images_that_were_not_seen_are_not_shown(index: LabelIndex, tmp_path: Path) -> None:
    """They cannot be decoded."""
    index.path(2).write_bytes(b"")
    nothing = dict.fromkeys((0, 1, 3), NOTHING)
    write_prediction_pictures(tmp_path, index, nothing, threshold=THRESHOLD, single_batch=4)
    assert len(list(tmp_path.glob("image_*.jpg"))) == 3


def test_pictures_leave_the_batch_alone(index: LabelIndex) -> None:
    batch = collate([DetectionDataset(index, SizeRule(64))[0]])
    before = batch.images.clone()
    batch_picture(batch, index.classes)
    assert torch.equal(batch.images, before)
