"""Flags that change the network, through the scripts."""

from pathlib import Path

import pytest
import torch

from models.create_fasterrcnn_model import create_from_checkpoint
from torch_utils.checkpoint import load_checkpoint

MODEL = "fasterrcnn_mbv3_small_nano_head"
TRAIN = ("--no-pretrained", "--epochs", 1, "--imgsz", 64, "--workers", 0, "--batch", 2, "--device", "cpu")
FLAGS = (
    "--freeze", 1, "--norm", "frozen", "--anchors", "auto", "--class-agnostic", "--head-width", 32, "--nms", 0.4,
    "--rpn-nms", 0.6, "--max-detections", 50, "--rois-per-image", 64, "--proposals", 100, "--layer-decay", 0.8,
    "--detector", "torchvision",
)  # fmt: skip


@pytest.mark.full
def test_the_network_is_as_wished_in_training_resume_evaluation_and_fine_tuning(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    folder = tmp_path / "run"
    trained = run(
        "train.py", "--data", data.yaml, "--model", MODEL, *TRAIN, *FLAGS, "--project-dir", folder
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "Anchors (--anchors auto): " in trained.stdout + trained.stderr
    checkpoint = load_checkpoint(folder / "last_model.pth", whole_run=True)
    saved = checkpoint["model_options"]
    wished = {"freeze": 1, "norm": "frozen", "class_agnostic": True, "head_width": 32, "nms": 0.4, "rpn_nms": 0.6}
    wished |= {"detections": 50, "rois_per_image": 64, "proposals": 100, "detector": "torchvision"}
    assert {name: saved[name] for name in wished} == wished
    assert len(saved["anchor_sizes"]) == 5
    assert saved["anchor_sizes"] != [32, 64, 128, 256, 512]
    assert len({group["lr_scale"] for group in checkpoint["optimizer_state_dict"]["param_groups"]}) > 5
    model = create_from_checkpoint(checkpoint)
    assert model.rpn.anchor_generator.sizes[0] == tuple(saved["anchor_sizes"])

    last = folder / "last_model.pth"
    for change in (
        ["--unfreeze"],
        ["--freeze", 2],
        ["--layer-decay", 0.5],
        ["--anchors", "default"],
        ["--norm", "own"],
    ):
        refused = run("train.py", "-r", "-w", last, "--epochs", 2, *change)
        assert refused.returncode == 2
        assert f"error: {change[0]} cannot change in a run that goes on: drop it" in refused.stderr
    resumed = run("train.py", "-r", "-w", last, "--epochs", 2, "--freeze", 1, "--max-detections", 60)
    assert resumed.returncode == 0, resumed.stderr
    saved["detections"] = 60
    assert load_checkpoint(last)["model_options"] == saved
    assert run("eval.py", "--weights", last, "--data", data.yaml, "--workers", 0, "--device", "cpu").returncode == 0
    tuned = run(
        "train.py", "--data", data.yaml, "-w", last, *TRAIN, "--unfreeze", "--nms", 0.3, "--project-dir", tmp_path / "t"
    )
    assert tuned.returncode == 0, tuned.stderr
    changed = load_checkpoint(tmp_path / "t" / "last_model.pth")["model_options"]
    assert changed == {**saved, "freeze": 0, "nms": 0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", MODEL, "--freeze", 99), "freeze is 99, and this backbone has"),
        (("--model", MODEL, "--freeze", 2, "--unfreeze"), "--unfreeze contradicts --freeze 2: drop one of them"),
        (("--model", "fasterrcnn_nano", "--norm", "group"), "this backbone has no batch norms"),
        (
            ("--model", "fasterrcnn_nano", "--activation-checkpointing"),
            "activation_checkpointing: this backbone cannot",
        ),
        (
            ("--model", "fasterrcnn_resnet18_fpn", "--anchor-sizes", 8, 16),
            "anchor_sizes has 2 sizes, and this model has 5 levels",
        ),
        (("--model", "fasterrcnn_nano", "--anchor-sizes", 0), "'0' is not a number above 0"),
        (("--model", "fasterrcnn_nano", "--head-width", 10**9), "head_width is 1000000000, expected at most 65536"),
        (("--model", "timm/resnet18x"), "resnet18"),
        pytest.param(("--model", "torchvision/resnet18x"), "resnet18", marks=pytest.mark.full),
        pytest.param(("--model", "timm/hf-hub:somebody/net"), "hf-hub:somebody/net", marks=pytest.mark.full),
        pytest.param(("--model", "timm/../weights"), "../weights", marks=pytest.mark.full),
    ],
)
def test_wishes_that_cannot_be_met_are_one_line(make_data, run, tmp_path: Path, arguments, message: str) -> None:
    done = run("train.py", "--data", make_data().yaml, *TRAIN, *arguments, "--project-dir", tmp_path / "run")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "error: " in last
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_other_anchors_on_a_finished_model_must_be_as_many(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    assert (
        run("train.py", "--data", data.yaml, "--model", "fasterrcnn_nano", *TRAIN, "--project-dir", "a").returncode == 0
    )
    again = ("train.py", "--data", data.yaml, *TRAIN, "-w", "a/last_model.pth")
    assert run(*again, "--anchor-sizes", 8, 16, 24, 32, 48, "--project-dir", "b").returncode == 0
    done = run(*again, "--anchor-sizes", 8, 16, "--project-dir", "c")
    assert done.returncode == 2
    assert "the weights do not fit this model: they have another shape for rpn.head.cls_logits" in done.stderr


@pytest.mark.full
def test_a_checkpoint_of_the_first_format_goes_on(make_data, run, tmp_path: Path) -> None:
    """Format 1 counted trainable layers; its files resume."""
    data = make_data()
    first = ("train.py", "--data", data.yaml, "--model", "fasterrcnn_nano", *TRAIN, "--project-dir", "a")
    assert run(*first, "--decay-all").returncode == 0
    path = tmp_path / "a" / "last_model.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["format"] = 1
    checkpoint["model_options"] = {"norm": "batch", "trainable_layers": None, "rois_per_image": 512, "proposals": None}
    for group in checkpoint["optimizer_state_dict"]["param_groups"]:
        del group["lr_scale"]
    for name in ("anchors", "freeze", "unfreeze", "norm", "layer_decay", "decay_all", "ema", "precision"):
        del checkpoint["options"][name]
    torch.save(checkpoint, path)
    resumed = run("train.py", "-r", "-w", path, "--epochs", 2)
    assert resumed.returncode == 0, resumed.stderr
    assert load_checkpoint(path)["format"] == 2
