"""sahi_inference.py as users run it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import sahi_inference
from tests.conftest import squares
from tests.support.checkpoints import write_checkpoint
from torch_utils.predict import load_detector
from utils.cli.flags import parse_options
from utils.cli.options import SahiOptions
from utils.errors import UserError
from utils.images.image_files import write_image
from utils.slicing.grid import Slices
from utils.slicing.sliced_detector import SlicedDetector

SLICES = ("--slice-height", "70", "--slice-width", "90")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint of random weights that finds many boxes."""
    return write_checkpoint(tmp_path / "model.pth", spread=20)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (name, size) in enumerate({"a.v1.png": (120, 180), "a.v2.png": (60, 80)}.items()):
        write_image(folder / name, squares(np.random.default_rng(i), *size, 5)[0])
    return folder


def detect(folder: Path, weights: Path, pictures: Path, *words: str) -> list[dict]:
    """Run main, and give what log.json says."""
    argv = ["-w", str(weights), "-i", str(pictures), "-o", str(folder), "-d", "cpu", "--log-json", "--table", *words]
    sahi_inference.main(parse_options(SahiOptions, "", argv))
    return json.loads((folder / "log.json").read_text(encoding="utf-8"))


def test_as_a_user_runs_it(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    done = run("sahi_inference.py", "-w", weights, "-i", pictures / "a.v1.png", *SLICES)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/inference/res_1/a.v1.png").is_file()
    assert "Slices of 90 x 70 px, overlapping by 0.2 of the height and 0.2 of the width, and the whole" in done.stdout


def test_pictures_table_and_json_hold_what_the_detector_finds(weights: Path, pictures: Path, tmp_path: Path) -> None:
    """Fault of the predecessor: --log-json crashed."""
    content = detect(tmp_path / "out", weights, pictures, *SLICES)
    names = ["a.v1.png", "a.v2.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*names, "boxes.csv", "log.json"]
    assert [i["file_name"] for i in content["images"]] == names
    detector = SlicedDetector(load_detector(weights, device="cpu"), Slices(70, 90))
    for number, name in enumerate(names, 1):
        found = detector(pictures / name, threshold=0.3)
        rows = [a for a in content["annotations"] if a["image_id"] == number]
        assert [a["score"] for a in rows] == pytest.approx(found.scores.tolist(), abs=1e-4)
        assert [a["category_id"] for a in rows] == found.labels.tolist()
    table = list(csv.DictReader((tmp_path / "out/boxes.csv").open(encoding="utf-8")))
    assert len(table) == len(content["annotations"]) > 10


def test_slices_find_other_things_than_whole_images(weights: Path, pictures: Path, tmp_path: Path) -> None:
    found = {
        name: detect(tmp_path / name, weights, pictures / "a.v1.png", *words)["annotations"]
        for name, words in {
            "slices": SLICES,
            "whole": ("--slice-height", "600", "--slice-width", "600"),
            "slices_only": (*SLICES, "--no-standard-pred"),
            "nms": (*SLICES, "--postprocess-type", "NMS", "--match-metric", "IOU"),
        }.items()
    }
    assert len({json.dumps(rows) for rows in found.values()}) == len(found)


def test_classes_and_threshold(weights: Path, pictures: Path, tmp_path: Path) -> None:
    """Fault of the predecessor: --classes was ignored."""
    rows = detect(tmp_path / "out", weights, pictures, *SLICES, "--classes", "2", "-th", "0.4")["annotations"]
    assert {row["category_id"] for row in rows} == {2}
    assert min(row["score"] for row in rows) >= 0.4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--track",), "--track is for videos"),
        (("--classes", "3"), "--classes 3: no such class; the classes are 1 red, 2 green"),
        (("--slice-height", "1", "--slice-width", "1"), "slices of 1 x 1 px .limit 20,000"),
    ],
)
def test_mistakes_are_told(weights: Path, pictures: Path, tmp_path: Path, words: tuple[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(tmp_path / "out", weights, pictures, *words)


@pytest.mark.parametrize(
    "words", [("--overlap-height-ratio", "1"), ("--slice-width", "0"), ("--postprocess-type", "x")]
)
def test_flags_out_of_range(words: tuple[str], capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options(SahiOptions, "", words)
    assert words[0] in capsys.readouterr().err
