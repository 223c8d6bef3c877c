from pathlib import Path

import pytest
import torch

from tests.support.processes import run_two
from torch_utils.distributed import Processes, all_gather, broadcast_from_main, join_processes, pick_device
from utils.errors import UserError


def test_the_default_device_needs_no_gpu() -> None:
    """Fault of the predecessor: the default device crashed without a GPU."""
    assert pick_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("cuda:99", r"--device cuda:99: PyTorch .* sees \d+ GPU\(s\) here: use --device cpu"),
        ("gpu", "--device gpu: no such device"),
        ("meta", "--device meta: not supported"),
    ],
)
def test_a_device_that_is_not_there_is_refused(wish: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pick_device(wish)


@pytest.mark.parametrize(("wish", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_has_a_number(monkeypatch: pytest.MonkeyPatch, wish: str, number: int) -> None:
    """torch.cuda.set_device takes no device without one."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    assert pick_device(wish) == torch.device("cuda", number)
    assert chosen == [number]


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes = join_processes("cpu", "env://", 1)
    assert processes == Processes(torch.device("cpu"))
    assert processes.is_main
    assert not processes.several
    assert broadcast_from_main(processes, lambda: 3) == 3
    assert all_gather(processes, 3) == [3]


def test_world_size_without_a_launcher_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun --nproc_per_node=2"):
        join_processes("cpu", "env://", 2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two in the environment: expected a number"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK=x in the environment"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the 2 processes cannot meet at --dist-url env://"),
    ],
)
def test_a_wrong_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join_processes("cpu", "env://", 1)


def test_two_processes_share_what_they_find_and_leave(tmp_path: Path) -> None:
    """Leaving right after a collective hung one time in four."""
    done = run_two(
        tmp_path,
        "assert broadcast_from_main(processes, lambda: processes.rank) == 0\n"
        "norm = torch.nn.BatchNorm1d(3)\n"
        "norm.running_mean += processes.rank + 1\n"
        "share_buffers(processes, norm)\n"
        "assert norm.running_mean.tolist() == [1, 1, 1]\n"
        "for _ in range(20):\n"
        "    assert list(all_gather(processes, torch.full((9,), processes.rank).sum().item())) == [0, 9]\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_an_end_right_after_messages_is_no_crash(tmp_path: Path) -> None:
    """gloo's threads aborted an interpreter that ended while they freed them: after an error, exit code -6 not 2."""
    message = "torch.distributed.broadcast(torch.zeros(9), src=0, async_op=True)"
    done = run_two(tmp_path, f"for _ in range(50):\n    {message}\n", torchrun=True)
    assert done.returncode == 0, done.stderr


def test_one_process_of_a_machine_makes_what_all_of_it_share(tmp_path: Path) -> None:
    done = run_two(
        tmp_path,
        "import os\n"
        "import socket\n"
        "made = from_first_of_machine(processes, lambda: f'by {processes.rank}')\n"
        "assert made == 'by 0'\n"
        "socket.gethostname = lambda: str(processes.rank)\n"
        "made = from_first_of_machine(processes, lambda: f'by {processes.rank}')\n"
        "assert made == f'by {processes.rank}'\n"
        "def fail():\n"
        "    if processes.rank == 1:\n"
        "        raise UserError('too little memory')\n"
        "try:\n"
        "    from_first_of_machine(processes, fail)\n"
        "except UserError as error:\n"
        "    os.write(1, f'told {error}\\n'.encode())\n"
        "cleanup()\n",
    )
    assert done.stdout.splitlines() == ["told too little memory"] * 2, done.stderr


def test_a_mistake_that_the_main_process_finds_is_told_once(tmp_path: Path) -> None:
    done = run_two(
        tmp_path,
        "import sys\n"
        "def fail():\n"
        "    raise UserError('once')\n"
        "try:\n"
        "    broadcast_from_main(processes, fail)\n"
        "except UserError as error:\n"
        "    sys.stdout.write(f'told {error}\\n')\n"
        "except SystemExit as left:\n"
        "    sys.stdout.write(f'left {left.code}\\n')\n",
    )
    assert sorted(done.stdout.splitlines()) == ["left 2", "told once"], done.stderr


def test_the_main_process_names_damaged_images_of_all(tmp_path: Path) -> None:
    done = run_two(
        tmp_path,
        "from torch_utils.distributed import share_faults\n"
        "from utils.loading.loader import Loader\n"
        "from utils.logs import setup_logging\n"
        "setup_logging(quiet=not processes.is_main)\n"
        "loader = Loader([], [], largest=(1, 32, 32), workers=0, device=torch.device('cpu'))\n"
        "for epoch in range(2):\n"
        "    loader.log_faults([f'{processes.rank}.jpg: cut off', 'both.jpg: cut off'])\n"
        "    share_faults(processes, loader)\n"
        "cleanup()\n",
    )
    lines = [f"{name}.jpg: cut off; it is left out" for name in ("0", "both", "1")]
    assert done.stdout.splitlines() == lines, done.stderr
