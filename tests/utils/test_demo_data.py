from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from utils import demo_data
from utils.data_config import DataConfig, load_data_config
from utils.errors import DataError
from utils.label_index import open_index


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """The demo's own YAML, with few images, in a new working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_data, "IMAGES", {"train": 12, "valid": 6})
    monkeypatch.setattr(demo_data, "_FRAMES", 10)
    return load_data_config(ROOT / "data_configs" / "demo.yaml")


def test_it_is_a_data_set(config: DataConfig) -> None:
    demo_data.make_demo(config)
    train, valid = (open_index(config, split, "pascal_voc") for split in ("train", "valid"))
    assert (len(train), len(valid)) == (12, 6)
    assert train.report.lines() == []
    assert set(train.labels.tolist()) == {1, 2, 3, 4}
    assert len(train.boxes) > 12


def test_every_machine_draws_the_same(config: DataConfig) -> None:
    demo_data.make_demo(config)
    files = {p: p.read_bytes() for p in Path("data/demo").rglob("*") if p.suffix in (".jpg", ".xml", ".txt")}
    Path("data/demo/version.txt").unlink()
    demo_data.make_demo(config)
    assert all(p.read_bytes() == content for p, content in files.items())


def test_it_is_drawn_once(config: DataConfig) -> None:
    demo_data.make_demo(config)
    before = Path("data/demo/train/images/train_000.jpg").stat().st_mtime_ns
    demo_data.make_demo(config)
    assert Path("data/demo/train/images/train_000.jpg").stat().st_mtime_ns == before


def test_boxes_fit_their_shapes(config: DataConfig) -> None:
    shape = demo_data._random_shape(np.random.default_rng(3))
    ground = np.zeros((240, 320, 3), np.float32)
    painted, visible = demo_data._paint(ground, [shape], [])
    y, x = np.nonzero(painted.max(2) > 20)
    x1, y1, x2, y2 = demo_data._box(shape)
    assert visible[0] == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose((x.min(), y.min(), x.max() + 1, y.max() + 1), (x1, y1, x2, y2), atol=2)


def test_video_and_tracks(config: DataConfig) -> None:
    demo_data.make_demo(config)
    video = cv2.VideoCapture("data/demo/video.mp4")
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 10
    rows = np.loadtxt("data/demo/video_tracks.txt", delimiter=",")
    assert rows.shape[1] == 9
    assert rows[:, 0].min() == 1
    assert rows[:, 0].max() == 10
    assert (rows[:, 4:6] > 0).all()


def test_another_generator_is_refused(config: DataConfig) -> None:
    with pytest.raises(DataError, match="GENERATE is 'other', expected 'demo'"):
        demo_data.make_demo(DataConfig(**{**vars(config), "generate": "other"}))
    with pytest.raises(DataError, match="the demo has 4 classes, CLASSES has 1"):
        demo_data.make_demo(DataConfig(**{**vars(config), "classes": ("__background__", "disc")}))
