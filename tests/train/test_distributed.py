"""train.py in two processes on CPUs: the same results as in one, and an end for all when one of them ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import train
from models.rcnn import sampling
from tests.conftest import HANG, ROOT
from tests.support.fuzzing.image_bytes import damage_pixels
from tests.support.processes import run_ranks
from tests.support.training_runs import FAST, RUN_FILES, first_ones, run_folder
from torch_utils.checkpoint import load_checkpoint
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions

SOON = 120  # s from a death to the end of the last process
START = """
import os, train
from utils.cli.script import parse_command_line, run_main
from utils.cli.train_options import TrainOptions
rank = os.environ.get("RANK") or os.environ["SLURM_PROCID"]
"""
TRAIN = "run_main(train.main, parse_command_line(TrainOptions, ''))\n"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def two(folder: Path, *arguments: object, code: str = "", torchrun: bool = True) -> subprocess.CompletedProcess[str]:
    """Run train.py after some code in two processes, of torchrun or of the script server, which saves seconds."""
    script = folder / "two.py"
    script.write_text(START + code + TRAIN)
    if not torchrun:
        return run_ranks(folder, script, *arguments)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script)
    return subprocess.run(
        [sys.executable, *map(str, (*launch, *arguments))],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip


def one(*arguments: object) -> None:
    """train.py in this process."""
    train.main(parse_options(TrainOptions, "", list(map(str, arguments))))


def test_two_processes_end_with_the_checkpoint_of_one(
    make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "random_priorities", first_ones)
    arguments = ("--data", make_data(images=8).yaml, *FAST, "--rois-per-image", 8, "--epochs", 2)
    one(*arguments, "--batch", 4, "--name", "one")
    code = (
        "from models.rcnn import sampling\n"
        "from tests.support.training_runs import first_ones\n"
        "sampling.random_priorities = first_ones\n"
    )
    done = two(tmp_path, *arguments, "--batch", 2, "--name", "two", code=code, torchrun=False)
    assert done.returncode == 0, done.stderr
    for name in ("last_model.pth", "best_model.pth", "last_model_state.pth"):
        expected, found = (load_checkpoint(run_folder(tmp_path, run) / name) for run in ("one", "two"))
        assert list(found) == list(expected)
        assert list(found["model_state_dict"]) == list(expected["model_state_dict"])
        torch.testing.assert_close(found["model_state_dict"], expected["model_state_dict"], rtol=1e-3, atol=1e-5)
    expected, found = (load_checkpoint(run_folder(tmp_path, run) / "last_model.pth") for run in ("one", "two"))
    torch.testing.assert_close(found["train_loss_list"], expected["train_loss_list"], rtol=1e-4, atol=1e-5)
    momenta = [file["optimizer_state_dict"]["state"] for file in (found, expected)]
    torch.testing.assert_close(*momenta, rtol=1e-2, atol=1e-4)


@pytest.mark.full
def test_a_run_changes_hands(make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, then one, then two, with an odd number of images; the second meets a damaged one."""
    monkeypatch.chdir(tmp_path)
    data = make_data(images=7)
    said = f"{damage_pixels(data.root / 'valid/images/valid_2.jpg')}: cannot be read as an image"
    done = two(tmp_path, "--data", data.yaml, *FAST, "--epochs", 2, "--name", "a")
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path, "a")
    assert (folder / "train.log").read_text().count(said) == 1
    assert done.stdout.count(said) == 1
    assert {p.name for p in folder.iterdir()} >= RUN_FILES
    assert len(list(folder.glob("events*"))) == 1
    assert [p.name for p in folder.parent.iterdir()] == ["a"]

    one("-r", "-w", folder / "last_model.pth", "--epochs", 3)
    last = load_checkpoint(folder / "last_model.pth")
    assert (last["epoch"], len(last["rng"]), len(last["train_loss_list"])) == (3, 1, 2 + 2 + 4)
    done = two(tmp_path, "-r", "-w", folder / "last_model.pth", "--epochs", 4)
    assert done.returncode == 0, done.stderr
    last = load_checkpoint(folder / "last_model.pth")
    assert (last["epoch"], len(last["rng"]), len(last["train_loss_list"])) == (4, 2, 2 + 2 + 4 + 2)


DYING = """
import signal, time
import torch_utils.distributed, torch_utils.engine, torch_utils.training.update

open(f"pid{{rank}}", "w").write(str(os.getpid()))

def end(*_, **__):
    open("ended_at", "w").write(str(time.time()))
    if {how!r} == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ZeroDivisionError("on purpose")

finish = torch_utils.training.update.Updater.finish

def end_in_mid_epoch(self, update, losses):
    return end() if update == 1 else finish(self, update, losses)

if rank != "{rank}" and {where!r} == "waiting":
    train.run_folder = lambda options: time.sleep(100)
elif rank == "{rank}" and {where!r} == "waiting":
    torch_utils.distributed.dist.broadcast_object_list = end
elif rank == "{rank}" and {where!r} == "main":
    train.run_folder = end
elif rank == "{rank}" and {where!r} == "step":
    torch_utils.training.update.Updater.finish = end_in_mid_epoch
elif rank == "{rank}":
    torch_utils.engine.share_buffers = end
"""


def ended_soon(folder: Path, processes: int = 2) -> bool:
    return (
        time.time() - float((folder / "ended_at").read_text()) < SOON
        and not any(psutil.pid_exists(int((folder / f"pid{rank}").read_text())) for rank in range(processes))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "how", "rank"),
    [
        pytest.param("evaluation", "raised", 1, marks=pytest.mark.full),
        pytest.param("step", "killed", 1, marks=pytest.mark.full),
        pytest.param("waiting", "killed", 1, marks=pytest.mark.full),
        pytest.param("step", "killed", 0, marks=pytest.mark.slow),
        pytest.param("step", "raised", 1, marks=pytest.mark.slow),
        pytest.param("evaluation", "killed", 0, marks=pytest.mark.slow),
        pytest.param("main", "killed", 0, marks=pytest.mark.slow),
    ],
)
def test_the_end_of_one_is_the_end_of_all(make_data, tmp_path: Path, where: str, how: str, rank: int) -> None:
    code = DYING.format(where=where, how=how, rank=rank)
    done = two(tmp_path, "--data", make_data(images=12).yaml, *FAST, "--name", "a", code=code)
    assert ended_soon(tmp_path)
    assert done.returncode != 0
    cause = "ZeroDivisionError: on purpose" if how == "raised" else "Signal 9 (SIGKILL)"
    assert cause in done.stderr
    assert ("Traceback" in done.stderr) >= (how == "raised")


@pytest.mark.full
def test_what_all_processes_complain_of_is_told_once(make_data, tmp_path: Path) -> None:
    slow = "import atexit, time\nif rank == '0':\n    atexit.register(time.sleep, 5)\n"
    done = two(tmp_path, "--data", "nowhere.yaml", *FAST, code=slow)
    assert done.returncode != 0
    assert done.stderr.count("error: nowhere.yaml") == 1, done.stderr


@pytest.mark.full
def test_what_one_process_complains_of_is_told(make_data, tmp_path: Path) -> None:
    code = (
        "from utils.errors import UserError\n"
        "def fail(*_, **__):\n"
        "    raise UserError('of the second process')\n"
        "if rank == '1':\n"
        "    train.train_one_epoch = fail\n"
    )
    done = two(tmp_path, "--data", make_data().yaml, *FAST, code=code)
    assert done.returncode != 0
    assert done.stderr.count("error: of the second process") == 1, done.stderr


def as_srun(folder: Path, code: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """train.py in two processes as srun starts them."""
    script = folder / "two.py"
    script.write_text(START + code + TRAIN)
    slurm = {
        "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_NODELIST": "localhost,node[01-04,07]", "SLURM_JOB_ID": str(os.getpid()),
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(**slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)),
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.mark.full
def test_srun_needs_no_torchrun(make_data, tmp_path: Path) -> None:
    processes = as_srun(tmp_path, "", "--data", make_data().yaml, *FAST, "--epochs", 1, "--name", "a")
    (output, errors), (silence, more) = (process.communicate(timeout=HANG) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], errors + more
    assert "Results are in outputs/training/a" in output
    assert silence == ""
    assert len(load_checkpoint(run_folder(tmp_path, "a") / "last_model.pth")["rng"]) == 2


@pytest.mark.full
def test_without_a_launcher_the_others_notice_a_death(make_data, tmp_path: Path) -> None:
    """srun without --kill-on-bad-exit ends nobody."""
    code = DYING.format(where="step", how="killed", rank=1)
    processes = as_srun(tmp_path, code, "--data", make_data(images=12).yaml, *FAST, "--name", "a")
    (_, errors), _ = (process.communicate(timeout=HANG) for process in processes)
    assert time.time() - float((tmp_path / "ended_at").read_text()) < SOON
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL], errors
    assert "Traceback" in errors
