"""train.py with policies, as users run it."""

from pathlib import Path

import pytest

from tests.test_train import FAST, assert_same_run, kill_when, run_folder
from tests.utils.test_augmentation_config import EXAMPLE
from torch_utils.checkpoint import save_checkpoint
from torch_utils.resume import with_checkpoint
from utils.augmentation_policy import POLICIES, AugmentationPolicy
from utils.flags import parse_options
from utils.train_options import TrainOptions


@pytest.mark.heavy
def test_a_strong_run_with_own_transforms_resumes_bit_equal_without_their_file(make_data, run, tmp_path: Path) -> None:
    data = make_data(images=6)
    config = tmp_path / "aug.yaml"
    config.write_text(EXAMPLE)
    command = ("--data", data.yaml, *FAST, "--aug", "strong", "--aug-config", "aug.yaml", "--epochs", 3)
    whole = run("train.py", *command, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    said = (
        "Augmentation (--aug strong): mosaic 0.5; crop 0.5; mixup 0.1; paste 0.1; left-right flip 0.5; "
        "size times 0.75 to 1.25\n"
        "Augmentation (--aug strong): aug.yaml: HorizontalFlip 0.5; OneOf 0.3 (MotionBlur, GaussNoise); "
        "RandomBrightnessContrast 0.5\n"
    )
    assert said in whole.stdout
    folder = run_folder(tmp_path, "killed")
    kill_when(tmp_path, ("--name", "killed", *command), folder, "Epoch: [1]")
    config.unlink()
    resumed = run("train.py", "-r", "-w", folder / "last_model.pth")
    assert resumed.returncode == 0, resumed.stderr
    assert said in resumed.stdout
    assert_same_run(run_folder(tmp_path, "whole"), folder)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), AugmentationPolicy(flip=0.25, mosaic=0.5)),
        (("--mosaic", "0"), AugmentationPolicy(flip=0.25)),
        (("--aug", "light"), POLICIES["light"]),
    ],
)
def test_a_policy_typed_when_resuming_starts_anew(tmp_path: Path, argv: tuple, expected: AugmentationPolicy) -> None:
    """And a run from before there were policies goes on as it was."""
    saved = {"flip": 0.25, "mosaic": 0.5, "use_train_aug": False}
    run = {"model_state_dict": {}, "data": {}, "model_name": "x", "optimizer_state_dict": {}, "epoch": 1}
    save_checkpoint(tmp_path / "last_model.pth", {**run, "options": saved})
    typed = parse_options(TrainOptions, "", ["-r", "-w", str(tmp_path / "last_model.pth"), *argv])
    options, _ = with_checkpoint(typed)
    assert options.policy(None) == expected


def test_a_mistake_in_the_transforms_is_one_line(make_data, run, tmp_path: Path) -> None:
    (tmp_path / "aug.yaml").write_text("- HorizontalFlip\n- RandomCrop: {height: 100, width: 10}")
    done = run("train.py", "--data", make_data().yaml, *FAST, "--aug-config", "aug.yaml")
    assert done.returncode == 2
    assert "aug.yaml:2: RandomCrop fails on an image of 80 x 64 px" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "outputs").exists()
