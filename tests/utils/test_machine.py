import mmap
from pathlib import Path

import pytest

from utils.machine import cores, free_memory, resident_memory

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
