"""Processes of a distributed run: rank, device, and collectives.

torchrun and `python -m torch.distributed.launch --use_env` set RANK, LOCAL_RANK and WORLD_SIZE, and SLURM's srun has
variables of its own. Without a launcher there is one process, and every function here works without communication.
"""

import atexit
import functools
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from torch_utils.slurm import slurm_place
from utils.errors import USAGE, UserError
from utils.loading.loader import Loader

Value = TypeVar("Value")

_FREEING = 0.5  # s, in which gloo's threads surely have freed the last message
_HEARING = 1.0  # s in which the main process has told its error; a launcher ends all once one has left
_BY_ENVIRONMENT = "env://"  # of --dist-url: by MASTER_ADDR and MASTER_PORT
_TIMEOUT = timedelta(minutes=10)  # a rank that hears nothing for so long gives up; PyTorch's default is 30


@dataclass(frozen=True)
class Processes:
    """Rank and device of this process."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process names the run folder, writes and logs."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether the run has several processes."""
        return self.world_size > 1


def pick_device(wish: str | None) -> torch.device:
    """The device that --device names, or the first GPU, or the CPU without one; torch's current one from now on.

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
        device = torch.device("cuda", device.index or 0)  # several of torch's functions want a number
        torch.cuda.set_device(device)  # which memory statistics, pinned memory and format queries go by
    elif device.type != "cpu":
        raise UserError(f"--device {wish}: not supported: cpu, cuda or cuda:N")
    return device


def join_processes(device_wish: str | None, dist_url: str, world_size: int) -> Processes:
    """Join the process group as the launcher's environment says; a single process without a launcher.

    On GPUs each process uses the one of its local rank and NCCL; on CPUs the backend is gloo.

    Raises:
        UserError: no such device, or the environment lacks rank, world size or address.
    """
    slurm = None if "RANK" in os.environ else slurm_place(os.environ)
    if slurm and _number("WORLD_SIZE", slurm.world_size) != slurm.world_size:
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment, and srun started {slurm.world_size} processes: "
            "unset it, or start as many"
        )
    world_size = slurm.world_size if slurm else _number("WORLD_SIZE", world_size)
    if world_size == 1:
        return Processes(pick_device(device_wish))
    if slurm is None and "RANK" not in os.environ:
        raise UserError(
            f"--world-size {world_size} needs a launcher: torchrun --nproc_per_node={world_size} train.py ... "
            "(it sets RANK and WORLD_SIZE), or srun"
        )
    rank = slurm.rank if slurm else _number("RANK", 0)
    on_cpu = device_wish == "cpu" or not torch.cuda.is_available()
    if not on_cpu and device_wish not in (None, "cuda"):
        raise UserError(f"--device {device_wish}: each of several processes takes a GPU of its own: drop --device")
    gpu = slurm.local_rank if slurm else _number("LOCAL_RANK", rank)
    if slurm and torch.cuda.device_count() == 1:  # srun --gpus-per-task shows each process its own only
        gpu = 0
    device = pick_device(device_wish if on_cpu else f"cuda:{gpu}")
    url = slurm.url if slurm and dist_url == _BY_ENVIRONMENT else dist_url
    try:
        dist.init_process_group(
            "gloo" if on_cpu else "nccl", init_method=url, rank=rank, world_size=world_size, timeout=_TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the {world_size} processes cannot meet at --dist-url {url} ({str(error).splitlines()[0]}): "
            "start them with torchrun, which says where"
        ) from None
    atexit.register(_let_free)
    return Processes(device, rank, world_size)


def _number(variable: str, default: int) -> int:
    """The number in a launcher's environment variable."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(f"{variable}={text} in the environment: expected a number, as torchrun sets it")
    return int(text)


def cleanup() -> None:
    """Leave the process group; not needed after an error."""
    if dist.is_initialized():
        dist.barrier()
        _let_free()
        dist.destroy_process_group()


def _let_free() -> None:
    """Give gloo's threads time to free the tensors of the last message, while the group is there.

    They take Python's lock for it. The group's end waits for them with that lock held, so right after a collective it
    may wait for ever; and an interpreter that ends meanwhile is aborted by them (both seen with torch 2.7.1).
    """
    if dist.is_initialized():
        time.sleep(_FREEING)


def broadcast_from_main(processes: Processes, make: Callable[[], Value]) -> Value:
    """Call `make` on rank 0 and return its result in every process. Plain objects only.

    Raises:
        UserError: from `make`; the other processes exit silently.
    """
    if not processes.several:
        return make()
    value, error = None, None
    if processes.is_main:
        try:
            value = make()
        except (UserError, OSError) as raised:
            error = raised
    box = [value, error is not None]
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if box[1]:
        time.sleep(_HEARING)
        raise SystemExit(USAGE)
    return box[0]


def from_first_of_machine(processes: Processes, make: Callable[[], Value]) -> Value:
    """Call `make` in the first process of each machine and return its result on that machine. Plain objects only.

    Raises:
        UserError: from `make`, in whichever process it was raised.
    """
    if not processes.several:
        return make()
    machines = all_gather(processes, socket.gethostname())
    first = machines.index(machines[processes.rank])
    made: Value | UserError | None = None
    if first == processes.rank:
        try:
            made = make()
        except UserError as error:
            made = error
    everyone = all_gather(processes, made)
    for error in (value for value in everyone if isinstance(value, UserError)):
        raise error
    return everyone[first]


def count_on_machine(processes: Processes) -> int:
    """Number of processes on this machine; every process calls this."""
    return all_gather(processes, socket.gethostname()).count(socket.gethostname())


def highest(processes: Processes, number: int) -> int:
    """Maximum of all processes' numbers, in every process; reduced between hosts, so that no GPU is waited for."""
    if not processes.several:
        return number
    value = torch.tensor(number)
    dist.all_reduce(value, dist.ReduceOp.MAX, group=_hosts())
    return int(value)


@functools.cache
def _hosts() -> dist.ProcessGroup | None:
    """A gloo group; None, the default group, on CPUs."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=_TIMEOUT)


def share_buffers(processes: Processes, model: nn.Module) -> None:
    """Broadcast rank 0's buffers, which are the ones that are saved.

    After a step the batch norm statistics differ between processes; DistributedDataParallel makes them equal only
    before the next step.
    """
    if processes.several:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def all_gather(processes: Processes, value: Any) -> Sequence[Any]:
    """`value` of every rank, in order of rank, everywhere."""
    if not processes.several:
        return [value]
    values: list[Any] = [None] * processes.world_size
    dist.all_gather_object(values, value)
    return values


def share_faults(processes: Processes, *loaders: Loader) -> None:
    """Log the damaged images of all processes in the main process."""
    if processes.several:
        for loader in loaders:
            everyone = all_gather(processes, sorted(loader.faults))
            loader.log_faults(fault for faults in everyone for fault in faults)
