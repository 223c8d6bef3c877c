import pytest
import torch

from torch_utils.distributed import Processes, from_main, gathered, join_processes, pick_device
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


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes = join_processes("cpu", "env://", 1)
    assert processes == Processes(torch.device("cpu"))
    assert processes.is_main
    assert not processes.several
    assert from_main(processes, 3) == 3
    assert gathered(processes, 3) == [3]


def test_world_size_without_a_launcher_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun --nproc_per_node=2"):
        join_processes("cpu", "env://", 2)
