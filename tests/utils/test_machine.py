import mmap
from pathlib import Path

import pytest
import torch

from utils.errors import UserError
from utils.machine import cores, explain_out_of_memory, free_memory, out_of_memory_message, resident_memory

MIB = 1 << 20


def test_there_is_a_core() -> None:
    assert cores() >= 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": 9 * MIB, "memory.current": 5 * MIB, "memory.stat": f"anon 7\ninactive_file {MIB}\n"}, 5 * MIB),
        ({"memory.max": 5 * MIB, "memory.current": 6 * MIB, "memory.stat": "anon 7\n"}, 0),
        (
            {"memory/memory.limit_in_bytes": 9 * MIB, "memory/memory.usage_in_bytes": MIB, "memory/memory.stat": ""},
            8 * MIB,
        ),
        ({"memory.max": "max", "memory.current": 5, "memory.stat": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_free_memory_knows_the_limit_of_a_container(tmp_path: Path, files: dict, expected: int | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    free = free_memory(tmp_path)
    assert free == expected if expected is not None else free > 16 * MIB


def test_this_process_has_memory() -> None:
    before = resident_memory()
    held = mmap.mmap(-1, 64 * MIB)  # not memory that this process had and freed
    held[:] = bytes(len(held))
    assert len(held) / 2 < resident_memory() - before


GPU = "the memory of the GPU is full"
MACHINE = "the memory of this machine is full"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), f"{GPU} (CUDA out of memory. "
         "Tried to allocate 2.00 GiB.)"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), f"{GPU} (CUDA error: out of memory)"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         f"{GPU} (CUBLAS_STATUS_ALLOC_FAILED)"),
        (RuntimeError("GET was unable to find an engine to execute this computation"),
         f"{GPU} (unable to find an engine to execute this computation)"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to "
         "allocate 99 bytes."), f"{MACHINE} (not enough memory: you tried to allocate 99 bytes)"),
        (MemoryError(), MACHINE),
        (MemoryError("Unable to allocate 9 GiB"), f"{MACHINE} (Unable to allocate 9 GiB)"),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), None),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError(), None),
        (ValueError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), None),
    ],
)  # fmt: skip
def test_what_was_full(error: Exception, words: str | None) -> None:
    assert out_of_memory_message(error) == words


def test_torch_says_so_here_in_words_that_we_know() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory_message(raised.value).startswith(MACHINE)


def test_a_place_and_a_remedy_are_added() -> None:
    with (
        pytest.raises(
            UserError, match=r"^step 3: the memory of the GPU is full \(CUDA out of memory\): lower --batch$"
        ),
        explain_out_of_memory("step 3", "lower --batch"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("step 3", "lower --batch"):
        raise RuntimeError("shapes")
