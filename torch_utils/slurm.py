"""The place of a process that SLURM's srun started, from the variables it sets (srun's manual, OUTPUT ENVIRONMENT)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from utils.errors import UserError

_FIRST_PORT, _PORTS = 15000, 15000  # below 32768, where Linux begins to choose ports by itself
_PSEUDO_STEPS = range(
    0xFFFFFFF0, 1 << 32
)  # slurm.h: the shell of salloc, a batch script ...; srun's steps count from 0
_FIRST_OF_RANGE = re.compile(r"\[([^],-]+)[^]]*\]")  # [01-04,07] -> 01


@dataclass(frozen=True)
class SlurmPlace:
    """This process among those of its job step."""

    rank: int
    world_size: int
    local_rank: int  # among those of its machine
    url: str  # where they meet


def slurm_place(environment: Mapping[str, str]) -> SlurmPlace | None:
    """The place that srun gave this process; None where there is no srun, or it started no other.

    A batch script and the shell of salloc know the number of tasks of their job too, but are one process.

    Args:
        environment: where it has MASTER_ADDR and MASTER_PORT, they win over the step's first host and a port by number.

    Raises:
        UserError: a variable is no number.
    """
    if not {"SLURM_PROCID", "SLURM_STEP_ID"} <= environment.keys():
        return None
    world_size = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    step = _number(environment, "SLURM_STEP_ID")
    if world_size <= 1 or step in _PSEUDO_STEPS:
        return None
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")
    host = environment.get("MASTER_ADDR") or first_host(hosts)
    port = environment.get("MASTER_PORT") or _FIRST_PORT + (_number(environment, "SLURM_JOB_ID") + step) % _PORTS
    return SlurmPlace(
        rank=_number(environment, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_number(environment, "SLURM_LOCALID"),
        url=f"tcp://{host}:{port}",
    )


def first_host(hosts: str) -> str:
    """The first of a list such as `node[01-04,07],gpu3`: node01."""
    return _FIRST_OF_RANGE.sub(r"\1", hosts).split(",")[0]


def _number(environment: Mapping[str, str], *names: str) -> int:
    """The value of the first of the variables that is set; 0 for none."""
    name = next((name for name in names if name in environment), None)
    text = environment[name] if name else "0"
    if not text.isdecimal():
        raise UserError(f"{name}={text} in the environment: expected a number, as srun sets it")
    return int(text)
