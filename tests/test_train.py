"""train.py as users run it, on data sets of a few small images."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from tests.conftest import HANG, ROOT, full_among
from tests.support.labels import to_coco, to_yolo
from tests.support.training_runs import ENGINE, FAST, RUN_FILES, assert_same_run, kill_when, run_folder
from torch_utils.checkpoint import load_checkpoint, save_checkpoint


def test_a_run_leaves_what_users_look_for(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    data.rewrite(SAVE_VALID_PREDICTION_IMAGES=True)
    done = run("train.py", "--data", data.yaml, *FAST, "--epochs", 2, "--name", "smoke", draw=True)
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path, "smoke")
    files = {p.name for p in folder.iterdir()}
    assert files >= RUN_FILES | {"image_0_0.jpg", "image_1_1.jpg"}
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert not any(name.endswith(".tmp") for name in files)

    for line in (
        "Number of training samples: 4", "Number of validation samples: 4", "3,005,786 total parameters.",
        "3,005,786 training parameters.", "Epoch: [0]  [0/2]  eta: ", "Epoch: [1] Total time: ", "Test:  [0/2]  eta: ",
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = ", "BEST VALIDATION mAP: ",
        "SAVING BEST MODEL FOR EPOCH: 1", "Test:  loss: ", "Train sample:  [0/2]  eta: ", "Train sample:  mAP: ",
        f"look at {Path('outputs/training/smoke/predictions.jpg')} and {Path('outputs/training/smoke/report.html')}",
    ):  # fmt: skip
        assert line in done.stdout, line
    assert done.stdout.splitlines()[2:] == (folder / "train.log").read_text().splitlines()[2:]

    rows = list(csv.reader((folder / "results.csv").open()))
    assert rows[0] == [
        "epoch", "map", "map_05", "train loss", "train cls loss", "train box reg loss", "train obj loss",
        "train rpn loss", "val loss", "val cls loss", "val box reg loss", "val obj loss", "val rpn loss", "train map",
        "train map_05",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["1", "2"]
    for total, terms in ((3, slice(4, 8)), (8, slice(9, 13))):
        assert float(rows[1][total]) == pytest.approx(sum(float(v) for v in rows[1][terms]), rel=1e-5)
    assert float(rows[2][8]) > 0
    assert all(0 <= float(value) <= 1 for value in rows[2][13:])
    assert yaml.safe_load((folder / "opt.yaml").read_text())["epochs"] == 2
    for name in ("train_batch_0.jpg", "predictions.jpg", "map.png"):
        assert cv2.imread(str(folder / name)).std() > 5


def test_checkpoints_have_the_predecessors_keys_and_load_safely(make_data, run, tmp_path: Path) -> None:
    run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 1, "--name", "a")
    folder = run_folder(tmp_path, "a")
    best, state, last = (
        torch.load(folder / name, weights_only=True)
        for name in ("best_model.pth", "last_model_state.pth", "last_model.pth")
    )
    assert {"epoch", "model_state_dict", "data", "model_name"} <= best.keys()
    assert {"model_state_dict", "data", "model_name"} <= state.keys()
    assert {
        "epoch", "model_state_dict", "optimizer_state_dict", "train_loss_list", "train_loss_list_epoch", "val_map",
        "val_map_05", "data", "model_name", "rng", "best_map", "epochs_without_improvement", "size_rule", "classes",
        "options", "versions", "format", "scaler_state_dict",
    } <= last.keys()  # fmt: skip
    assert best["epoch"] == 1
    assert 0 <= best["best_threshold"] <= 1
    assert list(best["class_thresholds"]) == best["classes"][1:]
    assert best["size_rule"] == {"size": 32, "max_size": 1333, "square": False}
    assert len(last["train_loss_list"]) == 2


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        pytest.param(0, (), id="defaults"),
        pytest.param(2, ENGINE, id="engine", marks=pytest.mark.full),
    ],
)
def test_a_killed_run_resumes_bit_equal(make_data, run, tmp_path: Path, workers: int, more: tuple) -> None:
    """Kill -9 in the first and in the third epoch, resume, and compare with a run that was left alone.

    Faults of the predecessor: scheduler, random numbers, best mAP and early-stopping state were not stored; resuming
    replaced the trained box head by a random one.
    """
    data = make_data(images=6)
    arguments = (
        "--data", data.yaml, *FAST, "--workers", workers, "--epochs", 4, "--mosaic", 0.5, "--use-train-aug",
        "--cosine-annealing", "--lr", 0.01, *more,
    )  # fmt: skip
    assert run("train.py", *arguments, "--name", "whole").returncode == 0
    folder = run_folder(tmp_path, "killed")
    kill_when(tmp_path, ("--name", "killed", *arguments), folder, "Epoch: [0]")
    resume = ("--resume-training", "--weights", folder / "last_model.pth")
    kill_when(tmp_path, resume, folder, "Epoch: [2]")
    resumed = run("train.py", *resume)
    assert resumed.returncode == 0, resumed.stderr
    assert "Epoch: [3]" in resumed.stdout
    assert_same_run(run_folder(tmp_path, "whole"), folder)


def test_resume_with_the_whole_command_typed_again(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    command = ("--data", data.yaml, *FAST, "--name", "a", "--lr", 0.01)
    run("train.py", *command, "--epochs", 2)
    last = run_folder(tmp_path, "a") / "last_model.pth"
    forget_measures(last)
    resumed = run("train.py", *command, "--epochs", 3, "-r", "-w", last, "--train-sample", 0)
    assert resumed.returncode == 0, resumed.stderr
    assert "Epoch: [2]" in resumed.stdout
    assert "Epoch: [1]" not in resumed.stdout
    assert [p.name for p in (tmp_path / "outputs/training").iterdir()] == ["a"]
    assert len(load_checkpoint(last)["val_map"]) == 3
    assert "Train sample:" not in resumed.stdout
    rows = list(csv.reader((last.parent / "results.csv").open()))
    assert [bool(row[7]) for row in rows[1:]] == [True] * 3, "train rpn loss"
    assert [bool(row[8]) for row in rows[1:]] == [False, False, True], "val loss, of a run from before there was one"
    assert [bool(row[13]) for row in rows[1:]] == [False] * 3


def forget_measures(path: Path) -> None:
    """Make a run's file one from before validation losses and the train sample's mAP."""
    checkpoint = load_checkpoint(path)
    del checkpoint["options"]["train_sample"]
    for row in checkpoint["history"]:
        for key in [key for key in row if key.startswith(("val_", "train_map"))]:
            del row[key]
    save_checkpoint(path, checkpoint)


@pytest.mark.full
def test_resuming_a_finished_run_trains_nothing_and_completes_its_files(make_data, run, tmp_path: Path) -> None:
    """A run that stopped early trained one epoch more when it was resumed; a kill at the end left old pictures."""
    run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 9, "--lr", 1e-9, "--patience", 1, "--name", "a")
    folder = run_folder(tmp_path, "a")
    before = (folder / "last_model.pth").read_bytes()
    best = load_checkpoint(folder / "best_model.pth")
    said = json.loads((folder / "metrics.json").read_text())
    assert (said["epoch"], said["best_threshold"]) == (best["epoch"], best["best_threshold"])
    for name in ("predictions.jpg", "map.png", "report.html"):
        (folder / name).unlink()
    resumed = run("train.py", "-r", "-w", folder / "last_model.pth")
    assert resumed.returncode == 0, resumed.stderr
    assert "Nothing is left to train: 2 epochs are done; a larger --patience trains on" in resumed.stdout
    assert "Early stopping" in resumed.stdout
    assert (folder / "last_model.pth").read_bytes() == before
    assert f"The best epoch, {best['epoch']}, has no report yet: measuring it again" in resumed.stdout
    assert json.loads((folder / "metrics.json").read_text()) == said
    assert {p.name for p in folder.iterdir()} >= RUN_FILES


@pytest.mark.full
def test_resuming_into_another_folder_takes_the_run_along(make_data, run, tmp_path: Path) -> None:
    run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 1, "--name", "a", "--amp")
    last = run_folder(tmp_path, "a") / "last_model.pth"
    for name, more, message in (
        ("b", (), "1 epochs are done; a larger --epochs trains on"), ("c", ("-e", 2, "--no-amp"), "Epoch: [1]"),
    ):  # fmt: skip
        resumed = run("train.py", "-r", "-w", last, "--name", name, *more)
        assert resumed.returncode == 0, resumed.stderr
        assert message in resumed.stdout
        folder = run_folder(tmp_path, name)
        assert {p.name for p in folder.iterdir()} >= RUN_FILES
        assert "has no report yet" not in resumed.stdout
        assert yaml.safe_load((folder / "opt.yaml").read_text())["name"] == name
    assert load_checkpoint(folder / "last_model.pth")["options"]["amp"] is False


def test_resume_refuses_another_optimizer_in_one_line(make_data, run, tmp_path: Path) -> None:
    run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 1, "--name", "a")
    done = run("train.py", "-r", "-w", run_folder(tmp_path, "a") / "last_model.pth", "--optimizer", "AdamW", "-e", 2)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "has the state of SGD" in done.stderr


def test_resume_takes_a_typed_learning_rate(make_data, run, tmp_path: Path) -> None:
    """Fault of the predecessor: resuming ignored --lr."""
    run("train.py", "--data", make_data().yaml, *FAST, "--name", "a", "--epochs", 1, "--lr", 0.01)
    last = run_folder(tmp_path, "a") / "last_model.pth"
    resumed = run("train.py", "-r", "-w", last, "--epochs", 2, "--lr", 0.0025)
    assert "lr: 0.002500" in resumed.stdout
    assert {g["lr"] for g in load_checkpoint(last)["optimizer_state_dict"]["param_groups"]} == {0.0025}


def test_a_predecessors_run_can_be_resumed(make_data, run, tmp_path: Path) -> None:
    run("train.py", "--data", make_data().yaml, *FAST, "--name", "a", "--epochs", 1, "--decay-all")
    ours = load_checkpoint(run_folder(tmp_path, "a") / "last_model.pth")
    theirs = {
        key: ours[key]
        for key in (
            "epoch", "model_state_dict", "optimizer_state_dict", "train_loss_list_epoch", "val_map", "val_map_05",
            "data", "model_name",
        )
    }  # fmt: skip
    theirs["train_loss_list"] = ours["train_loss_list"].tolist()
    theirs["model_state_dict"] = {f"module.{k}": v for k, v in ours["model_state_dict"].items()}
    (tmp_path / "old").mkdir()
    torch.save(theirs, tmp_path / "old/last_model.pth")
    resumed = run("train.py", "-r", "-w", "old/last_model.pth", *FAST, "--epochs", 2)
    assert resumed.returncode == 0, resumed.stderr
    last = load_checkpoint(tmp_path / "old/last_model.pth")
    assert last["epoch"] == 2
    assert last["options"]["decay_all"], "its optimizer has one group"
    assert last["options"]["lr"] == 0.005


def test_weights_without_resume_start_a_new_run_with_other_classes(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    run("train.py", "--data", data.yaml, *FAST, "--name", "a", "--epochs", 1)
    data.rewrite(CLASSES=["__background__", "red", "green", "blue"], NC=4)
    weights = run_folder(tmp_path, "a") / "best_model.pth"
    tuned = run("train.py", "--data", data.yaml, *FAST, "--name", "b", "--epochs", 1, "--weights", weights)
    assert tuned.returncode == 0, tuned.stderr
    assert load_checkpoint(run_folder(tmp_path, "b") / "best_model.pth")["classes"][-1] == "blue"


@pytest.mark.full
def test_an_existing_name_is_not_overwritten(make_data, run, tmp_path: Path) -> None:
    """Fault of the predecessor: an existing --name was silently overwritten."""
    data = make_data()
    for _ in range(2):
        done = run("train.py", "--data", data.yaml, *FAST, "--name", "a", "--epochs", 1)
    assert "outputs/training/a holds an earlier run: this one goes to outputs/training/a_2" in done.stdout
    assert (run_folder(tmp_path, "a") / "last_model.pth").stat().st_mtime < (
        run_folder(tmp_path, "a_2") / "last_model.pth"
    ).stat().st_mtime
    for expected in (0, 2):
        done = run("train.py", "--data", data.yaml, *FAST, "--project-dir", "mine", "--epochs", 1)
        assert done.returncode == expected
    assert "mine holds last_model.pth of an earlier run" in done.stderr
    (tmp_path / "file").touch()
    done = run("train.py", "--data", data.yaml, *FAST, "--project-dir", "file")
    assert (done.returncode, "file: a file of that name is in the way" in done.stderr) == (2, True), done.stderr


@pytest.mark.full
@pytest.mark.parametrize(("label_type", "convert"), [("yolo", to_yolo), ("coco", to_coco)])
def test_other_labels_give_the_same_losses_and_map(make_data, run, tmp_path: Path, label_type: str, convert) -> None:
    data = make_data()
    run("train.py", "--data", data.yaml, *FAST, "--name", "voc", "--epochs", 2)
    for split in ("train", "valid"):
        convert(data, split)
    done = run("train.py", "--data", data.yaml, *FAST, "--name", "other", "--epochs", 2, "--label-type", label_type)
    assert done.returncode == 0, done.stderr
    one, other = (run_folder(tmp_path, name) / "results.csv" for name in ("voc", "other"))
    assert one.read_text() == other.read_text()


FLAGS = (("--optimizer", "AdamW"), ("--cosine-annealing",), ("--amp",), ("-st",), ("-dw",))


@pytest.mark.parametrize("flags", full_among(FLAGS, FLAGS[1:-1]))
def test_adamw_cosine_and_other_flags_that_crashed_train(make_data, run, flags: tuple) -> None:
    """Faults of the predecessor: --optimizer AdamW and --cosine-annealing crashed."""
    done = run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 1, *flags)
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_one_batch_an_epoch_and_no_objects_at_all(make_data, run) -> None:
    data = make_data(images=2)
    for split in ("train", "valid"):
        for xml in (data.root / split / "labels").iterdir():
            xml.write_text("<annotation></annotation>")
    done = run("train.py", "--data", data.yaml, *FAST, "--epochs", 3, "--lr", 0.001)
    assert done.returncode == 0, done.stderr
    assert "lr: 0.001000" in done.stdout


def test_a_constant_map_stops_early(make_data, run) -> None:
    """Fault of the predecessor: a constant mAP never triggered early stopping; best_model.pth was not written at 0."""
    done = run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 9, "--lr", 1e-9, "--patience", 2, "-n", "a")
    assert "Early stopping: no better mAP for 2 epochs" in done.stdout
    assert "Epoch: [3]" not in done.stdout


def test_a_loss_that_is_not_finite_names_everything_and_saves_the_run(make_data, run, tmp_path: Path) -> None:
    """Fault of the predecessor: a NaN loss ended the run with nothing saved."""
    done = run("train.py", "--data", make_data().yaml, *FAST, "--epochs", 30, "--lr", 1e9, "--name", "a")
    assert done.returncode == 2
    for part in (
        "the loss is not finite in epoch",
        "loss_classifier",
        "loss_rpn_box_reg",
        "images: ",
        "train_",
        "--lr",
    ):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    last = run_folder(tmp_path, "a") / "last_model.pth"
    assert f"The run, as it was before its last steps were left out, is in {last.relative_to(tmp_path)}" in done.stderr
    resumed = run("train.py", "-r", "-w", last, "--lr", 0.001, "--epochs", load_checkpoint(last)["epoch"] + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert "not finite" not in resumed.stdout


MISTAKES = {  # what to add to the command -> what the message must have
    "model": (("--model", "fasterrcnn_resnet81"), "did you mean fasterrcnn_resnet18?"),
    "path": (("--data", "nowhere.yaml"), "nowhere.yaml: no such file"),
    "labels": (("--label-type", "yolo"), "add --label-type pascal_voc"),
    "device": (("--device", "cuda:77"), "use --device cpu"),
    "weights": (("--weights", "none.pth"), "none.pth: no such checkpoint"),
    "resume": (("--resume-training",), "--resume-training needs --weights"),
    "sync": (("--sync-bn",), "--sync-bn needs several GPUs"),
    "wandb": (("--wandb",), "Weights & Biases is not installed"),
    "mlflow": (("--mlflow",), "MLflow is not installed: pip install mlflow"),
    "fp16": (("--precision", "fp16"), "--precision fp16 needs a GPU"),
    "amp": (("--precision", "fp32", "--amp"), "--amp contradicts --precision fp32"),
    "milestones": (("--milestones", "3"), "--milestones are for --schedule step"),
    "window": (("-vt",), "--vis-transformed needs a display"),
}


@pytest.mark.parametrize(
    "mistake", full_among(sorted(MISTAKES), {"amp", "device", "fp16", "milestones", "mlflow", "sync"})
)
def test_a_users_mistake_is_one_line(make_data, run, tmp_path: Path, mistake: str) -> None:
    """Faults of the predecessor: unknown models silently became others; `-r` without `-w` crashed."""
    arguments, message = MISTAKES[mistake]
    if mistake in ("wandb", "mlflow") and importlib.util.find_spec(mistake):
        pytest.skip(f"{mistake} is installed here")
    done = run("train.py", "--data", make_data().yaml, *FAST, *arguments, DISPLAY="", WAYLAND_DISPLAY="")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "outputs").exists()


def test_nc_off_by_one_and_empty_folder(make_data, run) -> None:
    data = make_data()
    data.rewrite(NC=4)
    done = run("train.py", "--data", data.yaml, *FAST)
    assert (done.returncode, "CLASSES has 3 entries but NC is 4" in done.stderr) == (2, True)
    data.rewrite(NC=3)
    for path in (data.root / "train/images").iterdir():
        path.unlink()
    done = run("train.py", "--data", data.yaml, *FAST)
    assert (done.returncode, "no images in" in done.stderr) == (2, True)
    done = run("train.py", *FAST)
    assert (done.returncode, "--data is missing" in done.stderr) == (2, True)


@pytest.mark.full
def test_two_processes_on_cpus(make_data, run, tmp_path: Path) -> None:
    """Fault of the predecessor: multi-GPU runs could not be tried on CPUs, and every rank wrote files."""
    data = make_data(images=6)
    launch = ("-m", "torch.distributed.launch", "--standalone", "--nproc_per_node=2", "--use_env", ROOT / "train.py")
    done = subprocess.run(
        [sys.executable, *map(str, launch), "--data", str(data.yaml), *FAST, "--epochs", "2", "--name", "two", "--ema"],
        cwd=tmp_path, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Number of training samples: 6") == 1
    assert [p.name for p in (tmp_path / "outputs/training").iterdir()] == ["two"]
    last = load_checkpoint(run_folder(tmp_path, "two") / "last_model.pth")
    assert last["epoch"] == 2
    assert len(last["train_loss_list"]) == 4
    assert len(last["rng"]) == 2
