"""Read damaged data YAMLs and split lists."""

from pathlib import Path
from random import Random

import pytest
from PIL import Image

from tests.support.fuzzing.guard import answer, fuzz, is_one_line, mutations
from tests.support.fuzzing.mutations import WORDS, damage_bytes, encode
from utils.labels.data_config import SPLITS, DataConfig, Split, load_data_config
from utils.labels.index import open_index

YAML = """\
# where it is
TRAIN_DIR_IMAGES: &folder train
TRAIN_DIR_LABELS: *folder
VALID_DIR_IMAGES: "valid/images"
VALID_DIR_LABELS: valid/labels
TRAIN_LIST: train.txt
CLASSES: [
    __background__,
    cat, 'dog'
]
NC: 3
SAVE_VALID_PREDICTION_IMAGES: yes
"""
ENTRIES = ["a", "b.jpg", "c 1", "folder/d.png", "/somewhere/e.jpg"]


def damaged_yaml(number: int) -> bytes:
    chance = Random(number)
    if number % 2:
        return damage_bytes(YAML.encode(), chance, YAML.encode())
    lines = YAML.splitlines()
    for _ in range(chance.randint(1, 3)):
        at, blow = chance.randrange(len(lines)), chance.randrange(5)
        key = lines[at].partition(":")[0]
        value = chance.choice(("[[]]", "{a: 1}", "!!int x", "!!binary x", "2024-13-45", "&a [*a]", "|\n  text", *WORDS))
        if blow == 0:
            lines.insert(chance.randrange(len(lines)), lines[at])
        elif blow == 1:
            lines[at] = " " * chance.randint(0, 3) + lines[at].lower()
        elif blow == 2:
            lines[at] = f"{value}: {key}"
        else:
            lines[at] = f"{key}: {value}"
    return encode("\n".join(lines), chance)


@mutations(3_000)
def test_data_yaml(tmp_path: Path, count: int) -> None:
    read = []

    def check(path: Path, _: int) -> None:
        config = answer(lambda: load_data_config(path), path)
        if config is None:
            return
        read.append(config)
        assert len(config.classes) >= 2
        assert all(type(name) is str and is_one_line(name, 200) for name in config.classes)
        for split in SPLITS:
            answer(lambda: config.split(split), path)  # noqa: B023

    fuzz(tmp_path / "data.yaml", count, damaged_yaml, check)
    assert len(read) > count / 20


def damaged_list(number: int) -> bytes:
    chance = Random(number)
    entries = [chance.choice((entry, entry, chance.choice(WORDS))) for entry in ENTRIES]
    data = encode(chance.choice(("\n", "\r\n", "\r", " ")).join(entries), chance)
    return damage_bytes(data, chance, "\n".join(ENTRIES).encode()) if number % 2 else data


@mutations(3_000)
def test_split_list(tmp_path: Path, count: int) -> None:
    images = tmp_path / "images"
    (images / "folder").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg", "e.jpg"):
        Image.new("RGB", (8, 8)).save(images / name)
        (images / name).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    path = tmp_path / "train.txt"
    config = DataConfig(
        path=tmp_path / "data.yaml",
        classes=("__background__", "cat"),
        splits={"train": Split(images, images, path)},
        save_valid_prediction_images=False,
        generate=None,
        image_path=None,
        video_path=None,
        raw={},
    )
    read = []

    def check(path: Path, _: int) -> None:
        index = answer(lambda: open_index(config, "train", "yolo"), path)
        if index is not None:
            assert 1 <= len(index) == len(index.boxes) <= 4
            assert all(is_one_line(line, 2000) for line in index.report.lines()), index.report.lines()
            read.append(len(index))

    fuzz(path, count, damaged_list, check)
    assert len(read) > count / 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_yaml_is_good(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "data.yaml").write_text(YAML, encoding=encoding)
    assert load_data_config(tmp_path / "data.yaml").classes == ("__background__", "cat", "dog")
