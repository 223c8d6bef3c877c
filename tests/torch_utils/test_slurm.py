import pytest

from torch_utils.slurm import SlurmPlace, first_host, slurm_place
from utils.errors import UserError

SRUN = {  # the second of two processes on the second of two machines
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "2",
    "SLURM_JOB_ID": "70001", "SLURM_JOB_NODELIST": "node[07,09-12],gpu1", "SLURM_STEP_NODELIST": "node[09-10]",
}  # fmt: skip


def changed(**changes: str | None) -> dict[str, str]:
    return {name: value for name, value in {**SRUN, **changes}.items() if value is not None}


def test_a_process_of_srun() -> None:
    port = 15000 + (70001 + 2) % 15000
    assert slurm_place(SRUN) == SlurmPlace(rank=3, world_size=4, local_rank=1, url=f"tcp://node09:{port}")


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"SLURM_STEP_NODELIST": None}, "tcp://node07:25003"),
        ({"SLURM_STEP_NODELIST": None, "SLURM_JOB_NODELIST": None}, "tcp://localhost:25003"),
        ({"MASTER_ADDR": "10.0.0.1"}, "tcp://10.0.0.1:25003"),
        ({"MASTER_PORT": "29500"}, "tcp://node09:29500"),
    ],
)
def test_where_they_meet(changes: dict[str, str | None], url: str) -> None:
    assert slurm_place(changed(**changes)).url == url


def test_an_older_srun_knows_its_tasks_by_another_name() -> None:
    assert slurm_place(changed(SLURM_STEP_NUM_TASKS=None)).world_size == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "1"},  # srun -n 1 in a job of four
        {"SLURM_STEP_ID": None, "SLURM_PROCID": None, "SLURM_STEP_NUM_TASKS": None},  # salloc's shell on a login node
        {"SLURM_STEP_ID": None, "SLURM_STEP_NUM_TASKS": None},  # a batch script
        {"SLURM_STEP_ID": "4294967290"},  # salloc's shell as an interactive step
        {"SLURM_STEP_ID": "4294967291"},  # a batch script, where its step has a number
    ],
)
def test_one_process_is_no_distributed_run(changes: dict[str, str | None]) -> None:
    assert slurm_place(changed(**changes)) is None


def test_a_computer_without_slurm() -> None:
    assert slurm_place({}) is None


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="SLURM_PROCID=x in the environment: expected a number, as srun sets it"):
        slurm_place(changed(SLURM_PROCID="x"))


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"), ("node1,node2", "node1"), ("node[01-04,07]", "node01"), ("node[01-04,07],gpu3", "node01"),
        ("gpu3,node[01-04,07]", "gpu3"), ("node[7,9]", "node7"),
        ("rack[0-1]node[3-4].example.org", "rack0node3.example.org"),
        ("node-a-[001-128]", "node-a-001"),
    ],
)  # fmt: skip
def test_the_first_of_a_list_of_hosts(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
