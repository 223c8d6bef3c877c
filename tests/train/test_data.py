"""train.py with data and loaders that fail."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import HANG, ROOT
from tests.support.fuzzing.image_bytes import damage_pixels
from tests.support.training_runs import FAST, run_folder


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux has them")
def test_a_killed_worker_ends_the_run_with_the_cause(make_data, tmp_path: Path) -> None:
    """Never a hang."""
    arguments = ("--data", make_data(images=40).yaml, *FAST[:-2], "--workers", 2, "--epochs", 50, "--name", "a")
    with subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, arguments)],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline, log = time.monotonic() + HANG, tmp_path / "outputs/training/a/train.log"
        while process.poll() is None and time.monotonic() < deadline:
            if log.is_file() and "Epoch: [1]" in log.read_text():
                break
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children()
        assert workers
        for worker in workers[:2]:  # those of the training split
            worker.kill()
        _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert errors.startswith("error: loader ")
    assert "a process that loads images, was ended by signal SIGKILL" in errors
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.full), 1])
def test_damaged_images_are_named_and_the_training_goes_on(make_data, run, tmp_path: Path, workers: int) -> None:
    """A good header over pixels that cannot be decoded: found while training and validating."""
    data = make_data(images=6)
    for split in ("train", "valid"):
        damage_pixels(data.root / split / "images" / f"{split}_1.jpg")
        (data.root / split / "images" / f"{split}_2.jpg").write_bytes(b"no image")
    done = run("train.py", "--data", data.yaml, *FAST[:-1], workers, "--epochs", 2, "--name", "a")
    assert done.returncode == 0, done.stderr
    faults = (run_folder(tmp_path, "a") / "data_faults.txt").read_text()
    for split in ("train", "valid"):
        named = f"{split}_1.webp: cannot be read as an image: repair or remove it; it is left out"
        assert done.stdout.count(named) == 1, done.stdout
        assert f"{split}_2.jpg: cannot be read as an image" in faults
    assert done.stderr == ""
