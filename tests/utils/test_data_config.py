from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from utils.data_config import load_data_config
from utils.errors import DataError

GOOD = """\
TRAIN_DIR_IMAGES: train
TRAIN_DIR_LABELS: train
VALID_DIR_IMAGES: valid
VALID_DIR_LABELS: valid
CLASSES: [__background__, cat, dog]
NC: 3
SAVE_VALID_PREDICTION_IMAGES: true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text)
    return path


def test_good_file(tmp_path: Path) -> None:
    config = load_data_config(write(tmp_path, GOOD))
    assert config.classes == ("__background__", "cat", "dog")
    assert config.splits["train"].images == Path("train")
    assert set(config.splits) == {"train", "valid"}
    assert config.save_valid_prediction_images
    assert config.raw == yaml.safe_load(GOOD)


def test_nc_may_be_left_out(tmp_path: Path) -> None:
    assert len(load_data_config(write(tmp_path, GOOD.replace("NC: 3\n", ""))).classes) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NC: 3", "NC: 2", "data.yaml:5: CLASSES has 3 entries but NC is 2; NC counts __background__: set NC: 3"),
        ("NC: 3", "NC: three", "data.yaml:6: NC is 'three', expected a whole number"),
        ("NC: 3", "NC: true", "data.yaml:6: NC is True, expected a whole number"),
        ("TRAIN_DIR_IMAGES", "TRAIN_DIR_IMAGE", "unknown key 'TRAIN_DIR_IMAGE'; did you mean TRAIN_DIR_IMAGES?"),
        ("SAVE_VALID_PREDICTION_IMAGES: true", "colour: red", "data.yaml:7: unknown key 'colour'; known keys"),
        ("[__background__, cat, dog]", "[cat, dog, cow]", "CLASSES starts with 'cat': put '__background__' before it"),
        ("[__background__, cat, dog]", "[__background__, cat, cat]", "CLASSES names 'cat' twice"),
        ("[__background__, cat, dog]", "[__background__, cat, 7]", "CLASSES has 7, which YAML reads as int"),
        ("[__background__, cat, dog]\nNC: 3", "[__background__]", "CLASSES has only '__background__'"),
        ("[__background__, cat, dog]", "cat", "CLASSES is 'cat', expected a list"),
        ("CLASSES: [__background__, cat, dog]\n", "", "CLASSES is missing"),
        ("TRAIN_DIR_LABELS: train\n", "", "TRAIN_DIR_IMAGES is there but TRAIN_DIR_LABELS is missing"),
        ("NC: 3", "NC: [3", "data.yaml:7: not valid YAML"),
        ("NC: 3", "NC: !!python/object/apply:os.system ['true']", "data.yaml:6: not valid YAML"),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load_data_config(write(tmp_path, GOOD.replace(old, new)))
    assert message in str(error.value)
    assert str(tmp_path / "data.yaml") in str(error.value)


def test_a_list_is_no_data_yaml(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected keys such as CLASSES"):
        load_data_config(write(tmp_path, "- a\n- b\n"))


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"dat\.yaml: no such file; did you mean .*data\.yaml\?"):
        load_data_config(tmp_path / "dat.yaml")


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        load_data_config(tmp_path / "data.yaml")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "#" * (5 << 20))
    with pytest.raises(DataError, match="too large"):
        load_data_config(tmp_path / "data.yaml")


def test_missing_folder_names_key_and_value(tmp_path: Path) -> None:
    config = load_data_config(write(tmp_path, GOOD))
    with pytest.raises(DataError, match=r"TRAIN_DIR_IMAGES is 'train', which does not exist"):
        config.split("train")


def test_missing_split_names_its_keys(tmp_path: Path) -> None:
    config = load_data_config(write(tmp_path, GOOD))
    with pytest.raises(DataError, match="TEST_DIR_IMAGES and TEST_DIR_LABELS are missing"):
        config.split("test")


@pytest.mark.parametrize("path", sorted((ROOT / "data_configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_good_and_have_a_header(path: Path) -> None:
    config = load_data_config(path)
    assert config.raw["NC"] == len(config.classes)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith("# Images:") for line in header)
    assert any(line.startswith("# Licence:") for line in header)


def test_the_predecessors_configs_are_all_there() -> None:
    names = {path.stem for path in (ROOT / "data_configs").glob("*.yaml")}
    assert names >= {
        "aquarium", "aquarium_yolo", "coco", "coco128", "gtsdb", "smoke", "trash_icra", "voc", "test_image_config",
        "test_video_config",
    }  # fmt: skip
