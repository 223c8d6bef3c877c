"""eval.py as users run it."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.conftest import DataSet, run_script, write_data_set
from tests.support.labels import to_yolo
from tests.support.shared import made_once
from tests.support.training_runs import FAST, run_folder
from torch_utils.checkpoint import load_checkpoint


def train_once(folder: Path) -> None:
    data = write_data_set(folder, images=8, size=(64, 80), splits=("train", "valid", "test"))
    done = run_script(
        folder, "train.py", "--data", data.yaml, *FAST, "--imgsz", 64, "-st", "-e", 8, "--lr", 0.02, "--name", "a"
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def first_run() -> Path:
    """A folder with a data set of three splits, and outputs/training/a of a short run on it."""
    return made_once("eval", train_once)


@pytest.fixture
def trained(first_run: Path, tmp_path: Path) -> tuple[DataSet, Path]:
    """A copy of that data set, to change at will, and the best model."""
    shutil.copytree(first_run / "data", tmp_path / "data")
    text = (first_run / "data.yaml").read_text().replace(str(first_run), str(tmp_path))
    (tmp_path / "data.yaml").write_text(text)
    return DataSet(tmp_path / "data", tmp_path / "data.yaml"), run_folder(first_run, "a") / "best_model.pth"


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_eval_reproduces_training_and_reads_the_rest_from_the_checkpoint(trained, run, tmp_path: Path) -> None:
    """Faults of the predecessor: eval.py ran at 800 pixels whatever the model was trained at, ignored the checkpoint's
    model name, could not read YOLO labels, and used other metric code than training."""
    data, weights = trained
    data.rewrite(TEST_DIR_IMAGES=None, TEST_DIR_LABELS=None)
    done = run("eval.py", "--data", data.yaml, "--weights", weights, "--device", "cpu", "-v")
    assert done.returncode == 0, done.stderr
    assert "fasterrcnn_nano" in done.stdout
    assert "at 64 x 64 px" in done.stdout
    last = load_checkpoint(weights.with_name("last_model.pth"))
    best = max(last["val_map"])
    assert best > 0
    found = metrics(tmp_path / "outputs/evaluation/res_1")
    assert found["stats"]["AP IoU=0.50:0.95 area=all maxDets=100"] == pytest.approx(best, abs=1e-9)
    again = run("eval.py", "--data", data.yaml, "-mw", weights, "-d", "cpu", "-b", 3, "-o", "b3")
    assert again.returncode == 0, again.stderr
    assert metrics(tmp_path / "b3")["stats"] == pytest.approx(found["stats"], abs=1e-6)  # whatever the batch
    for row in ("class ", "red ", "green "):
        assert re.search(rf"^{row}", done.stdout, re.MULTILINE)
    assert (tmp_path / "outputs/evaluation/res_1/predictions.jpg").is_file()

    to_yolo(data, "valid")
    done = run("eval.py", "--data", data.yaml, "--weights", weights, "-d", "cpu", "--label-type", "yolo", "-o", "yolo")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "yolo") == found


def test_a_predecessors_file_gets_a_warning_about_its_size(trained, run, tmp_path: Path) -> None:
    """Fault of the predecessor: eval.py ran at 800 pixels whatever the model was trained at."""
    data, weights = trained
    for image in (data.root / "test/images").glob("test_[1-9].jpg"):
        image.unlink()
    checkpoint = torch.load(weights, weights_only=True)
    torch.save({k: checkpoint[k] for k in ("model_name", "model_state_dict", "data")}, tmp_path / "old.pth")
    done = run("eval.py", "--data", data.yaml, "--weights", tmp_path / "old.pth", "--device", "cpu", "-j", 0)
    assert done.returncode == 0, done.stderr
    assert "old.pth does not store its training size: using 800 px" in done.stdout


def test_the_test_split_is_used_where_there_is_one(trained, run) -> None:
    data, weights = trained
    done = run("eval.py", "--data", data.yaml, "--weights", weights, "--device", "cpu")
    assert "Number of test samples: 8" in done.stdout


def test_a_split_can_be_chosen(trained, run, tmp_path: Path) -> None:
    data, weights = trained
    for split, words in (("valid", "validation"), ("train", "training")):
        done = run("eval.py", "--data", data.yaml, "-w", weights, "-d", "cpu", "-j", 0, "--split", split, "-o", split)
        assert f"Number of {words} samples: 8" in done.stdout, done.stderr
        assert f"{split}: 8 images" in (tmp_path / split / "report.html").read_text()


def test_everything_is_written(trained, run, tmp_path: Path) -> None:
    """Pictures, a page, VOC's AP, and a COCO results file with which pycocotools comes to the same numbers."""
    data, weights = trained
    done = run(
        "eval.py", "--data", data.yaml, "-w", weights, "-d", "cpu", "-j", 0, "-o", "out", "--voc-ap", 2007,
        "--save-json", "found.json", draw=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json", "report.html", "predictions.jpg", "worst_images.jpg", "pr_curve.png", "f1_curve.png",
        "precision_curve.png", "recall_curve.png", "confusion_matrix.png",
    }  # fmt: skip
    written = metrics(tmp_path / "out")
    threshold = written["best_threshold"]
    assert 0 <= threshold <= 1
    assert f"Best score threshold, by mean F1: {threshold:.3f}" in done.stdout
    assert written["voc"]["year"] == 2007
    assert f"VOC 2007 mAP, IoU 0.50: {written['voc']['mean']:.4f}" in done.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "found_truth.json")
        evaluator = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    np.testing.assert_allclose(list(written["stats"].values()), evaluator.stats, rtol=0, atol=1e-12)


@pytest.mark.full
def test_six_views_of_each_image(trained, run, tmp_path: Path) -> None:
    data, weights = trained
    common = ("--data", data.yaml, "-w", weights, "-d", "cpu", "-j", 0)
    for name, more in (("one", ()), ("six", ("--tta",)), ("again", ("--tta", "-b", 3))):
        done = run("eval.py", *common, *more, "-o", name)
        assert done.returncode == 0, done.stderr
    one, six, again = (metrics(tmp_path / name)["stats"] for name in ("one", "six", "again"))
    assert six != one
    assert again == pytest.approx(six, abs=1e-6)
    assert six["AP IoU=0.50 area=all maxDets=100"] > 0.5 * one["AP IoU=0.50 area=all maxDets=100"]


@pytest.mark.full
def test_slices_of_each_image(trained, run, tmp_path: Path) -> None:
    """One slice that has all of an image is the image; smaller ones show something else."""
    data, weights = trained
    common = ("--data", data.yaml, "-w", weights, "-d", "cpu", "-j", 0)
    large = ("--slice", "--slice-height", 100, "--slice-width", 100)
    small = ("--slice", "--slice-height", 40, "--slice-width", 40)
    for name, more in (("whole", ()), ("one", large), ("several", small)):
        done = run("eval.py", *common, *more, "-o", name)
        assert done.returncode == 0, done.stderr
    assert "Slices of 40 x 40 px" in done.stdout
    assert "in slices of 40 x 40 px" in (tmp_path / "several/report.html").read_text()
    whole, one, several = (metrics(tmp_path / name)["stats"] for name in ("whole", "one", "several"))
    assert one == pytest.approx(whole, abs=1e-6)
    assert several != whole
    refused = run("eval.py", *common, "--slice-height", 40)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--slice-height" in refused.stderr


def test_imgsz_overrides_the_size_of_training(trained, run) -> None:
    data, weights = trained
    done = run("eval.py", "--data", data.yaml, "--weights", weights, "--device", "cpu", "--imgsz", 96)
    assert "at 96 px" in done.stdout


def test_classes_in_another_order_are_matched_by_name(trained, run, tmp_path: Path) -> None:
    data, weights = trained
    run("eval.py", "--data", data.yaml, "--weights", weights, "-d", "cpu", "-o", "one")
    data.rewrite(CLASSES=["__background__", "green", "red"])
    run("eval.py", "--data", data.yaml, "--weights", weights, "-d", "cpu", "-o", "other")
    one, other = (metrics(tmp_path / name)["classes"] for name in ("one", "other"))
    assert sorted(one, key=lambda c: c["name"]) == sorted(other, key=lambda c: c["name"])


def test_mistakes_are_one_line(trained, run, tmp_path: Path) -> None:
    data, weights = trained
    (tmp_path / "file").touch()
    for arguments, message in (
        (("--data", data.yaml, "--weights", "none.pth"), "none.pth: no such checkpoint"),
        (("--data", data.yaml, "--weights", weights, "--model", "fasterrcnn_resnet18"), "is not the model of the"),
        (("--data", data.yaml, "--model", "fasterrcnn_nano"), "has no published COCO weights"),
        (("--data", data.yaml, "--model", "fasterrcnn_nanno"), "did you mean fasterrcnn_nano?"),
        (("--data", data.yaml), "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),  # the predecessor's default model
        (("--data", data.yaml, "--weights", weights, "-o", "file"), "file: a file of that name is in the way"),
        (("--data", data.yaml, "--weights", weights, "--save-json", "no/f.json"), "there is no folder no"),
        (("--data", data.yaml, "--weights", weights, "--save-json", "data"), "--save-json data: is a folder"),
    ):
        done = run("eval.py", *arguments, "--device", "cpu", TORCH_HOME=str(tmp_path))
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    data.rewrite(CLASSES=["__background__", "red", "green", "blue"], NC=4)
    done = run("eval.py", "--data", data.yaml, "--weights", weights, "--device", "cpu")
    assert (done.returncode, "CLASSES has blue, which the model does not have" in done.stderr) == (2, True)
