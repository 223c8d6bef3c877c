"""Processes of a distributed run: who am I, and how we agree.

torchrun and `python -m torch.distributed.launch --use_env` set RANK, LOCAL_RANK and WORLD_SIZE; one process alone needs
none of this, and every function here then does the obvious.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from utils.errors import UserError

_TIMEOUT = timedelta(minutes=10)  # a rank that hears nothing for so long gives up; PyTorch's default is 30


@dataclass(frozen=True)
class Processes:
    """This process among all of a run."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this one names the run folder, writes and logs."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1


def pick_device(wish: str | None) -> torch.device:
    """The device that --device names, or the first GPU, or the CPU where there is none.

    Raises:
        UserError: no such device. Nothing falls back in silence.
    """
    if wish is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise UserError(f"--device {wish}: no such device: cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"--device {wish}: PyTorch {torch.__version__} sees {count} GPU(s) here: use --device cpu")
    elif device.type != "cpu":
        raise UserError(f"--device {wish}: not supported: cpu, cuda or cuda:N")
    return device


def join_processes(device_wish: str | None, dist_url: str, world_size: int) -> Processes:
    """Take the place that the launcher gave this process; alone where there is no launcher.

    On GPUs each process takes the one of its local rank and talks over NCCL, on CPUs over gloo.
    """
    world_size = int(os.environ.get("WORLD_SIZE", world_size))
    if world_size == 1:
        return Processes(pick_device(device_wish))
    if "RANK" not in os.environ:
        raise UserError(
            f"--world-size {world_size} needs a launcher: torchrun --nproc_per_node={world_size} train.py ... "
            "(it sets RANK and WORLD_SIZE)"
        )
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    on_cpu = device_wish == "cpu" or not torch.cuda.is_available()
    device = pick_device("cpu" if on_cpu and device_wish is None else device_wish if on_cpu else f"cuda:{local_rank}")
    if not on_cpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if on_cpu else "nccl", init_method=dist_url, rank=rank, world_size=world_size, timeout=_TIMEOUT
    )
    return Processes(device, rank, world_size)


def leave_processes() -> None:
    """Say goodbye, so that nobody waits for this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def from_main(processes: Processes, value: Any) -> Any:
    """`value` of rank 0, everywhere. Plain objects only."""
    if not processes.several:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(processes: Processes, value: Any) -> Sequence[Any]:
    """`value` of every rank, in order of rank, everywhere."""
    if not processes.several:
        return [value]
    values: list[Any] = [None] * processes.world_size
    dist.all_gather_object(values, value)
    return values
