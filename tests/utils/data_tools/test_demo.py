import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from utils.data_tools import demo as demo_data
from utils.errors import DataError
from utils.labels.data_config import DataConfig, Split, load_data_config
from utils.labels.index import open_index
from utils.tracking.logs import read_mot


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
    shutil.rmtree("data/demo")
    demo_data.make_demo(config)
    assert all(p.read_bytes() == content for p, content in files.items())


def test_the_pictures_are_those_of_version_2() -> None:
    """Another value needs another _VERSION."""
    picture, boxes, labels = demo_data._scene(np.random.default_rng([7, 0, 0]))
    assert demo_data._VERSION == "2"
    assert (len(boxes), labels.tolist()) == (5, [3, 1, 2, 2, 0])
    assert picture.mean() == pytest.approx(187.484, abs=0.01)


def test_it_is_drawn_once(config: DataConfig) -> None:
    demo_data.make_demo(config)
    before = Path("data/demo/train/images/train_000.jpg").stat().st_mtime_ns
    demo_data.make_demo(config)
    assert Path("data/demo/train/images/train_000.jpg").stat().st_mtime_ns == before


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    ["train/images/mine.jpg", "valid/labels/mine.xml", "video.mp4", "version.txt", "notes.txt"],
)
def test_what_a_user_has_there_is_not_overwritten(config: DataConfig, name: str) -> None:
    mine = Path("data/demo") / name
    mine.parent.mkdir(parents=True)
    mine.write_text("1")
    with pytest.raises(DataError, match=r"demo\.yaml: GENERATE would write .* to .*demo, which has other content"):
        demo_data.make_demo(config)
    assert content(Path("data")) == {f"demo/{name}": b"1"}


def test_a_strangers_checkpoint_cannot_have_a_file_replaced(config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("dear")
    paths = {s: Split(tmp_path / "diary" / s / "images", tmp_path / "diary" / s / "labels") for s in ("train", "valid")}
    with pytest.raises(DataError, match="which has other content"):
        demo_data.make_demo(replace(config, splits=paths))
    assert content(tmp_path) == {"diary": b"dear"}


def test_an_empty_folder_is_drawn_into(config: DataConfig) -> None:
    Path("data/demo").mkdir(parents=True)
    demo_data.make_demo(config)
    assert len(open_index(config, "train", "pascal_voc")) == 12


def test_another_version_is_drawn_anew_and_nothing_is_lost(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    demo_data.make_demo(config)
    Path("data/demo/train/images/mine.jpg").write_text("mine")
    before = content(Path("data/demo"))
    monkeypatch.setattr(demo_data, "_VERSION", "3")
    demo_data.make_demo(config)
    assert content(Path("data/demo_old_1")) == before
    assert content(Path("data/demo")).keys() == before.keys() - {"train/images/mine.jpg"}
    assert Path("data/demo", demo_data.MARKER).read_text() == "3\n"


def test_a_first_run_that_is_stopped_leaves_nothing_half(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path) -> None:
        assert list(folder.rglob("*.jpg"))
        assert not Path("data/demo").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_data, "_write_video", stop)
    with pytest.raises(KeyboardInterrupt):
        demo_data.make_demo(config)
    assert list(Path("data").iterdir()) == []


def test_two_first_runs_at_once_do_not_disturb_each_other(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video = demo_data._write_video

    def meanwhile(folder: Path) -> None:
        monkeypatch.setattr(demo_data, "_write_video", write_video)
        demo_data.make_demo(config)  # the other one is done first
        write_video(folder)

    monkeypatch.setattr(demo_data, "_write_video", meanwhile)
    demo_data.make_demo(config)
    assert [path.name for path in Path("data").iterdir()] == ["demo"]
    assert len(open_index(config, "valid", "pascal_voc")) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": None}, "GENERATE needs VALID_DIR_IMAGES and VALID_DIR_LABELS: add them"),
        ({"train": None, "valid": None}, "GENERATE needs TRAIN_DIR_IMAGES and TRAIN_DIR_LABELS: add them"),
        (
            {"valid": Split(Path("x/valid/images"), Path("x/valid/labels"))},
            "GENERATE writes train/images, .* of one folder",
        ),
        (
            {"train": Split(Path("data/demo/train/images"), Path("data/demo/train/images"))},
            "GENERATE writes train/images",
        ),
        (
            {s: Split(Path(s, "images"), Path(s, "labels")) for s in ("train", "valid")},
            "GENERATE would replace .*, which contains the working directory",
        ),
    ],
)
def test_folders_that_do_not_suit_are_refused(config: DataConfig, tmp_path: Path, changes: dict, message: str) -> None:
    splits = {name: split for name, split in {**config.splits, **changes}.items() if split}
    with pytest.raises(DataError, match=rf"demo\.yaml: {message}"):
        demo_data.make_demo(replace(config, splits=splits))
    assert content(tmp_path) == {}


def test_a_place_where_nothing_can_be_written_is_named(config: DataConfig) -> None:
    Path("data").write_text("a file")
    with pytest.raises(DataError, match=r"demo\.yaml: the demo data set cannot be written to .*data/demo \("):
        demo_data.make_demo(config)


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
    assert rows[:, 2:4].min() >= 1
    boxes = np.concatenate([tracks.boxes for tracks in read_mot(Path("data/demo/video_tracks.txt"))])
    assert boxes[:, :2].min() == 0
    assert (boxes[:, 2:] <= [320, 240]).all()


def test_another_generator_is_refused(config: DataConfig) -> None:
    with pytest.raises(DataError, match="GENERATE is 'other', expected 'demo'"):
        demo_data.make_demo(DataConfig(**{**vars(config), "generate": "other"}))
    with pytest.raises(DataError, match="the demo has 4 classes, CLASSES has 1"):
        demo_data.make_demo(DataConfig(**{**vars(config), "classes": ("__background__", "disc")}))
