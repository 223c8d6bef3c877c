"""train.py with policies, as users run it."""

import errno
from pathlib import Path

import pytest
import torch

import train
from datasets import DetectionDataset
from tests.support.painted_images import EXAMPLE_PIPELINE
from tests.support.training_runs import FAST, assert_same_run, kill_when, run_folder
from torch_utils.checkpoint import save_checkpoint
from torch_utils.distributed import Processes
from torch_utils.runs.resume import with_checkpoint
from utils.augment.policy import POLICIES, AugmentationPolicy
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index
from utils.loading import image_cache
from utils.loading.image_cache import RecentImages
from utils.loading.samplers import TrainBatchSampler
from utils.loading.size_rule import SizeRule


@pytest.mark.full
def test_a_strong_run_with_own_transforms_resumes_bit_equal_without_their_file(make_data, run, tmp_path: Path) -> None:
    data = make_data(images=6)
    config = tmp_path / "aug.yaml"
    config.write_text(EXAMPLE_PIPELINE)
    command = ("--data", data.yaml, *FAST, "--aug", "strong", "--aug-config", "aug.yaml", "--epochs", 3)
    whole = run("train.py", *command, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    said = (
        "Augmentation (--aug strong): mosaic 0.5; crop 0.5; mixup 0.1; copy-paste 0.1; left-right flip 0.5; "
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
    assert train._policy(options) == expected


@pytest.mark.full
def test_a_mistake_in_the_transforms_is_one_line(make_data, run, tmp_path: Path) -> None:
    (tmp_path / "aug.yaml").write_text("- HorizontalFlip\n- RandomCrop: {height: 100, width: 10}")
    done = run("train.py", "--data", make_data().yaml, *FAST, "--aug-config", "aug.yaml")
    assert done.returncode == 2
    assert "aug.yaml:2: RandomCrop fails on an image of 40 x 32 px" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("more", "free", "is_kept"),
    [
        (("--mosaic", 1), 30, True),
        (("--mosaic", 1, "--cache", "off"), 30, False),
        (("--aug", "light"), 30, False),
        (("--mosaic", 1), 26, False),
    ],
)
def test_images_of_the_last_samples_are_kept_where_there_is_no_room_for_all(
    make_data, tmp_path: Path, monkeypatch, caplog, more: tuple, free: int, is_kept: bool
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(image_cache, "free_memory", lambda: 4 * free * 64 * 80 * 3)
    config = load_data_config(make_data(images=40).yaml)
    words = ("--data", config.path, *FAST, "--imgsz", 64, "--batch", 1, *more)
    options, processes = parse_options(TrainOptions, "", list(map(str, words))), Processes(torch.device("cpu"))
    data = train._open_data(options, None, processes)
    loaders = train._make_loaders(options, data, tmp_path, processes)
    assert isinstance(data.train._cache, RecentImages) == is_kept
    said = "Those of the last 27 samples are kept, to be mixed into others: up to 0.00 GiB"
    assert (said in caplog.text) == is_kept, "three times 8, and the 3 of the loader"
    assert len(list(loaders.train)) == 40


def test_no_memory_for_images_of_the_last_samples_is_no_error(make_data, monkeypatch, caplog) -> None:
    def without_memory(*_) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(DetectionDataset, "keep_recent", without_memory)
    config = load_data_config(make_data().yaml)
    train_set = DetectionDataset(open_index(config, "train", "pascal_voc"), SizeRule(64))
    batches = TrainBatchSampler(4, 1, seed=0, num_mixed=3)
    train._cache_recent_images(train_set, batches, 0, Processes(torch.device("cpu")))
    assert (
        "No memory for the images that samples mix in (Cannot allocate memory): they are decoded again" in caplog.text
    )
