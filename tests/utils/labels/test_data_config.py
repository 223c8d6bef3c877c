from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from utils.errors import DataError
from utils.labels.data_config import Split, load_data_config, parse_data_config

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
    path.write_text(text, encoding="utf-8")
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
        ("SAVE_VALID_PREDICTION_IMAGES: true", "color: red", "data.yaml:7: unknown key 'color'; known keys"),
        (
            "SAVE_VALID_PREDICTION_IMAGES: true",
            "names: [a]",
            "unknown key names: this seems to be a data YAML of Ultra",
        ),
        ("[__background__, cat, dog]", "[cat, dog, cow]", "CLASSES starts with 'cat': put '__background__' before it"),
        ("[__background__, cat, dog]", "[__background__, cat, cat]", "CLASSES names 'cat' twice"),
        ("[__background__, cat, dog]", "[__background__, cat, 7]", "CLASSES has 7, which YAML reads as int"),
        ("[__background__, cat, dog]\nNC: 3", "[__background__]", "CLASSES has only '__background__'"),
        ("[__background__, cat, dog]", "cat", "CLASSES is 'cat', expected a list"),
        ("CLASSES: [__background__, cat, dog]\n", "", "CLASSES is missing"),
        ("TRAIN_DIR_LABELS: train\n", "", "TRAIN_DIR_IMAGES is given but TRAIN_DIR_LABELS is missing"),
        ("NC: 3", "NC: [3", "data.yaml:7: not valid YAML"),
        ("NC: 3", "NC: !!python/object/apply:os.system ['true']", "data.yaml:6: not valid YAML"),
        ("cat", "2024-13-45", "data.yaml:5: not valid YAML: '2024-13-45' is not a valid timestamp: put it in quotes"),
        ("NC: 3", "NC: 0x_", "data.yaml:6: not valid YAML: '0x_' is not a valid int"),
        ("NC: 3", "NC: !!int foo", "data.yaml:6: not valid YAML: 'foo' is not a valid int"),
        ("NC: 3", "NC: !!float foo", "data.yaml:6: not valid YAML: 'foo' is not a valid float"),
        ("NC: 3", 'NC: !!int ""', "data.yaml:6: not valid YAML: '' is not a valid int"),
        ("NC: 3", "NC: !!bool foo", "data.yaml:6: not valid YAML: 'foo' is not a valid bool"),
        ("NC: 3", "NC: !!timestamp foo", "data.yaml:6: not valid YAML: 'foo' is not a valid timestamp"),
        pytest.param("NC: 3", "NC: " + "9" * 5000, "data.yaml:6: not valid YAML: '9999", id="5000 digits"),
        pytest.param("NC: 3", "NC: 0x" + "f" * 5000, "data.yaml:6: not valid YAML: '0xfff", id="5000 hex digits"),
        pytest.param("NC: 3", "NC: " + "[" * 3000, "data.yaml:6: not valid YAML: more than 10 levels", id="nested ["),
        pytest.param(
            "NC: 3", "NC: " + "{a: " * 3000, "data.yaml:6: not valid YAML: more than 10 levels", id="nested {"
        ),
        ("NC: 3", "NC: \x01", "not valid YAML: unacceptable character #x0001"),
        ("NC: 3", "NC: &a [*a]", "data.yaml:6: not valid YAML: *a repeats a list: write it out"),
        ("NC: 3", "? [a]\n: 3", "data.yaml:6: not valid YAML: found unhashable key"),
        ("NC: 3", "? !!str {=: a}\n: 3", "data.yaml:6: not valid YAML: a list or mapping is not a 'str'"),
        ("NC: 3", "NC: !!int {=: abc}", "data.yaml:6: not valid YAML: a list or mapping is not a 'int'"),
        ("NC: 3", "NC: !!timestamp [1]", "data.yaml:6: not valid YAML: a list or mapping is not a 'timestamp'"),
        ("_LABELS: train", r'_LABELS: "a\0b"', r"data.yaml:2: TRAIN_DIR_LABELS is 'a\x00b', which cannot be a path"),
        ("NC: 3", r'TRAIN_LIST: "a\uD800b"', r"data.yaml:6: TRAIN_LIST is 'a\ud800b', which cannot be a path"),
        pytest.param("TRAIN", "%YAML 1" + "1" * 5000 + ".1\n---\nTRAIN", "data.yaml: not valid YAML", id="version"),
        ("cat", r'"a\x1b[2Jb"', r"data.yaml:5: CLASSES has 'a\x1b[2Jb': a name is one line of at most 200 characters"),
        ("cat", r'"a\nb"', r"data.yaml:5: CLASSES has 'a\nb': a name is one line"),
        pytest.param("cat", "x" * 201, "data.yaml:5: CLASSES has 'xxx", id="long name"),
        pytest.param("TRAIN_DIR_IMAGES", "x" * 900, "data.yaml:1: unknown key 'xxx", id="long key"),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load_data_config(write(tmp_path, GOOD.replace(old, new)))
    assert message in str(error.value)
    assert str(tmp_path / "data.yaml") in str(error.value)
    assert len(str(error.value).removeprefix(str(tmp_path))) < 500
    assert "\n" not in str(error.value)


def test_an_alias_bomb_makes_no_large_message(tmp_path: Path) -> None:
    lists = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(DataError, match=r"data\.yaml:2: not valid YAML: \*a repeats a list") as error:
        load_data_config(write(tmp_path, lists + "CLASSES: *h\n"))
    assert len(str(error.value)) < 500


def test_values_of_a_strangers_checkpoint_make_no_large_message() -> None:
    bomb = ["x"] * 9
    for _ in range(8):
        bomb = [bomb] * 9
    with pytest.raises(DataError, match=r"last_model\.pth: NC is \[\[") as error:
        parse_data_config({"CLASSES": ["__background__", "cat"], "NC": bomb}, Path("last_model.pth"))
    assert len(str(error.value)) < 500


def test_a_plain_value_may_be_repeated_by_name(tmp_path: Path) -> None:
    text = GOOD.replace("TRAIN_DIR_IMAGES: train", "TRAIN_DIR_IMAGES: &folder train").replace(
        "LABELS: train", "LABELS: *folder"
    )
    assert load_data_config(write(tmp_path, text)).splits["train"] == Split(Path("train"), Path("train"))


def test_class_names_of_any_language(tmp_path: Path) -> None:
    names = ["__background__", "Straßenbahn", "猫", "می‌خواهم", "👩‍🚒"]  # with zero-width joiners
    text = GOOD.replace("[__background__, cat, dog]\nNC: 3", f"[{', '.join(names)}]")
    assert load_data_config(write(tmp_path, text)).classes == tuple(names)


def test_a_folder_name_that_no_disk_takes(tmp_path: Path) -> None:
    config = load_data_config(write(tmp_path, GOOD.replace("_IMAGES: train", "_IMAGES: " + "x" * 300)))
    with pytest.raises(DataError, match=r"TRAIN_DIR_IMAGES is 'xxx.*which does not exist"):
        config.split("train")


def test_a_folder_name_of_a_megabyte_makes_no_long_message(tmp_path: Path) -> None:
    config = load_data_config(write(tmp_path, GOOD.replace("_IMAGES: train", "_IMAGES: " + "x" * 900_000)))
    with pytest.raises(DataError, match=r"TRAIN_DIR_IMAGES is 'xxx.*which does not exist") as error:
        config.split("train")
    assert len(str(error.value)) < 2000


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
    write(tmp_path, "#" * (2 << 20))
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
    assert any(line.startswith("# License:") for line in header)


def test_the_predecessors_configs_are_all_there() -> None:
    names = {path.stem for path in (ROOT / "data_configs").glob("*.yaml")}
    assert names >= {
        "aquarium", "aquarium_yolo", "coco", "coco128", "gtsdb", "smoke", "trash_icra", "voc", "test_image_config",
        "test_video_config",
    }  # fmt: skip
