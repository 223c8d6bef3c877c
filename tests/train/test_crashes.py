"""Crashes of a run, and the files that survive."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HANG, ROOT, DataSet, ScriptServer
from tests.support.training_runs import FAST, assert_same_run, run_folder
from torch_utils.checkpoint import load_checkpoint

resource = pytest.importorskip("resource")
SMALL = ("--head-width", "32", "--rois-per-image", "32", "--proposals", "50")


class Trainer:
    """train.py in a folder, killed after a while or not."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, ScriptServer(OMP_NUM_THREADS="1")

    def __call__(self, *arguments: object, kill_after: float | None = None) -> tuple[int, float]:
        """Exit code, negative for a signal, and seconds."""
        printed = self.folder / "printed.txt"
        return self.server.run(self.folder, ("train.py", *arguments), (printed, printed), kill_after=kill_after)

    def said(self) -> str:
        return (self.folder / "printed.txt").read_text()


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path)
    yield trainer
    trainer.server.close()


@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.full), pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    make_data, train: Trainer, tmp_path: Path, number: int
) -> None:
    """Kill -9 at random moments: of the start, of steps, of validation, of writing, which is after every update."""
    data = make_data(images=7)
    command = (
        "--data", data.yaml, *FAST, *SMALL, "--epochs", 3, "--mosaic", 0.5, "--lr", 0.01, "--save-minutes", 1e-6,
        "--ema", "--accumulate", 2,
    )  # fmt: skip
    code, seconds = train(*command, "--project-dir", "whole")
    assert code == 0, train.said()
    chance, kills, runs, middle = random.Random(0), 0, 0, 0
    while kills < number:
        runs += 1
        folder = tmp_path / f"run{runs}"
        code = None
        while code != 0:
            last = folder / "last_model.pth"
            resume = ("--resume-training", "--weights", last)
            arguments = resume if last.is_file() else (*command, "--project-dir", folder)
            code, _ = train(*arguments, kill_after=chance.uniform(0, 1.1 * seconds))
            assert code in (0, -signal.SIGKILL), train.said()
            kills += code != 0
            if code != 0 and last.is_file():
                middle += load_checkpoint(last)["epoch_under_way"]["images"] > 0
        assert_same_run(tmp_path / "whole", folder)
        assert not list(folder.glob(".*.tmp"))
    assert number < 50 or middle > number / 10, "few of the kills left an epoch in its middle"


def start(tmp_path: Path, *arguments: object, launcher: tuple = (), **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, ROOT / "train.py", *arguments]
    return subprocess.Popen(
        [str(word) for word in command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **more,
    )  # fmt: skip


def wait_for(folder: Path, text: str) -> None:
    """Wait until the run's log has the text."""
    log, deadline = folder / "train.log", time.monotonic() + HANG
    while not (log.is_file() and text in log.read_text()):
        assert time.monotonic() < deadline, f"no {text} in {log}"
        time.sleep(0.01)


def long_command(data: DataSet) -> tuple[object, ...]:
    return ("--data", data.yaml, *FAST, *SMALL, "--epochs", 2, "--lr", 0.01)


@pytest.mark.full
def test_a_signal_saves_the_run_in_mid_epoch(make_data, run, tmp_path: Path) -> None:
    """It goes to the loader's workers too, as schedulers have it."""
    command = (*long_command(make_data(images=40)), "--workers", 1)
    process = start(tmp_path, *command, "--name", "a", start_new_session=True)
    folder = run_folder(tmp_path, "a")
    wait_for(folder, "Epoch: [0]")
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped by SIGTERM. The run is in outputs/training/a/last_model.pth: go on with python train.py" in errors
    assert "Traceback" not in errors
    checkpoint = load_checkpoint(folder / "last_model.pth", whole_run=True)
    assert checkpoint["epoch"] == 0
    assert 0 < checkpoint["epoch_under_way"]["images"] < 40
    resumed = run("train.py", "-r", "-w", folder / "last_model.pth", OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    whole = run("train.py", *command, "--name", "whole", OMP_NUM_THREADS="1")
    assert whole.returncode == 0, whole.stderr
    assert_same_run(run_folder(tmp_path, "whole"), folder)


@pytest.mark.full
def test_several_processes_stop_together_and_another_number_goes_on(make_data, run, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    process = start(tmp_path, *long_command(make_data(images=41)), "--name", "a", launcher=torchrun)
    folder = run_folder(tmp_path, "a")
    wait_for(folder, "Epoch: [0]")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode != 0
    assert errors.count("stopped by SIGTERM. The run is in outputs/training/a/last_model.pth") == 1, errors
    seen = load_checkpoint(folder / "last_model.pth", whole_run=True)["epoch_under_way"]["images"]
    assert 0 < seen < 41
    resumed = run("train.py", "-r", "-w", folder / "last_model.pth", "--epochs", 1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Epoch: [0]  [{seen // 2:2d}/21]" in resumed.stdout
    assert load_checkpoint(folder / "last_model.pth")["epoch"] == 1


@pytest.mark.full
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(make_data, run, tmp_path: Path) -> None:
    command = (*long_command(make_data()), "--name", "a")
    assert run("train.py", *command).returncode == 0
    last = run_folder(tmp_path, "a") / "last_model.pth"
    before = last.read_bytes()
    limit = len(before) // 2

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(tmp_path, "-r", "-w", last, "--epochs", 3, "--cache", "off", preexec_fn=no_room)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 2, errors
    (line,) = errors.splitlines()
    assert "last_model" in line
    assert "cannot be written (File too large): make room" in line
    assert f"go on with python train.py --resume-training --weights {last}" in line
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*.tmp"))
    assert run("train.py", "-r", "-w", last, "--epochs", 3).returncode == 0


@pytest.mark.full
def test_data_that_vanish_end_the_run_with_what_is_safe(make_data, tmp_path: Path) -> None:
    data = make_data(images=40)
    process = start(tmp_path, *long_command(data), "--epochs", 50, "--name", "a", "--cache", "off")
    wait_for(run_folder(tmp_path, "a"), "Epoch: [0]")
    data.root.rename(tmp_path / "elsewhere")
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 2, errors
    (line,) = errors.splitlines()
    assert "no such file. The run is in outputs/training/a/last_model.pth: go on with python train.py" in line
