"""Commands, folders and comparisons of train.py's runs."""

import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.conftest import script_server
from torch_utils.checkpoint import load_checkpoint

FAST = ("--model", "fasterrcnn_nano", "--imgsz", "32", "--batch", "2", "--device", "cpu", "--workers", "0")
ENGINE = ("--ema", "--accumulate", 2, "--clip-grad", 1, "--repeat-factor", 0.9, "--class-weights", "balanced")
RUN_FILES = {
    "best_model.pth", "last_model.pth", "last_model_state.pth", "opt.yaml", "results.csv", "train.log", "map.png",
    "train_loss_iter.png", "train_loss_epoch.png", "train_loss_cls.png", "train_loss_bbox_reg.png",
    "train_loss_obj.png", "train_loss_rpn_bbox.png", "train_batch_0.jpg", "predictions.jpg", "report.html",
    "metrics.json", "pr_curve.png", "f1_curve.png", "precision_curve.png", "recall_curve.png", "confusion_matrix.png",
}  # fmt: skip


def run_folder(tmp_path: Path, name: str) -> Path:
    return tmp_path / "outputs" / "training" / name


def assert_same_run(one: Path, other: Path) -> None:
    """Bit-equal models, optimizers, random numbers and results of two finished runs."""
    assert (one / "results.csv").read_text() == (other / "results.csv").read_text()
    for name in ("last_model.pth", "best_model.pth", "last_model_state.pth"):
        assert_equal_content(load_checkpoint(one / name), load_checkpoint(other / name), name)


def assert_equal_content(one, other, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in ("name", "project_dir"):
                assert_equal_content(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal_content(a, b, f"{where}/{number}")
    else:
        assert one == other, where


def kill_when(cwd: Path, arguments: tuple, folder: Path, text: str) -> None:
    """Start train.py and kill it once its log has `text`."""
    printed = cwd / "killed.txt"
    code, _ = script_server().run(
        cwd, ("train.py", *arguments), (printed, printed), kill_when=(folder / "train.log", text)
    )
    assert code == -signal.SIGKILL, printed.read_text()


def first_ones(labels: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
    """Stand in for the random priorities of sampling: the first proposals win, whatever batch an image is in."""
    del widths
    return torch.linspace(1, 0, labels.shape[1]).expand_as(labels)
