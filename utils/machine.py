"""Cores and memory of this machine, and errors that say that memory is full."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_KEPT = 32 << 20  # bytes, the most that glibc allows
_MOST_KEPT = 256 << 20  # bytes
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = (  # limit, usage, statistics; of version 2 and 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def cores() -> int:
    """Of this process, which may be bound to some of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken without swapping: of the machine, and of the container's limit."""
    import psutil

    return min(psutil.virtual_memory().available, _left_in(cgroup))


def resident_memory() -> int:
    """Bytes of the machine's memory that this process has, shared ones counted in."""
    import psutil

    return psutil.Process().memory_info().rss


def release_memory() -> None:
    """Return what was freed to the system, which the C library of Linux keeps where later objects lie above it."""
    _glibc("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Keep what is freed for the next image; without it each is mapped anew, and its pages are filled with zeros."""
    _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGEST_KEPT)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _MOST_KEPT)


def _glibc(function: str, *arguments: int) -> None:
    """Call it, where the C library has it."""
    if sys.platform == "linux":
        call = getattr(ctypes.CDLL(None), function, None)
        if call is not None:
            call(*arguments)


def _left_in(cgroup: Path) -> float:
    """Bytes up to the memory limit of a control group, where pages of files that nobody uses count as free."""
    for limit, usage, statistics in _CGROUP_FILES:
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            lines = (cgroup / statistics).read_text().splitlines()
        except (OSError, ValueError):  # there is no such group, or its limit is the word "max"
            continue
        idle = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        return max(0, most - used + idle)
    return float("inf")


# Of a RuntimeError: c10/core/impl/alloc_cpu.cpp; the CUDA runtime and its libraries, beside torch's own allocator; and
# aten/src/ATen/native/cudnn/Conv_v8.cpp, where none of cuDNN's plans found the memory that it needs.
_ON_CPU = re.compile(r"DefaultCPUAllocator: (.*you tried to allocate \d+ bytes)")
_ON_GPU = re.compile(
    r"CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED|unable to find an engine to execute this computation"
)


def out_of_memory_message(error: BaseException) -> str | None:
    """What was full, in words, if that is what the error says."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch for it would make --help slow
        return f"the memory of the GPU is full ({text.splitlines()[0]})"
    if isinstance(error, MemoryError):
        return "the memory of this machine is full" + (f" ({text.splitlines()[0]})" if text else "")
    if isinstance(error, RuntimeError):
        if found := _ON_GPU.search(text):
            return f"the memory of the GPU is full ({found[0]})"
        if found := _ON_CPU.search(text):
            return f"the memory of this machine is full ({found[1]})"
    return None


@contextmanager
def explain_out_of_memory(doing: str, remedies: str) -> Iterator[None]:
    """Say where the memory became full, and what to do; every other error passes.

    Args:
        doing: such as "epoch 3, step 17, 8 images of 640 x 640 px".

    Raises:
        UserError: it did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = out_of_memory_message(error)
        if words is None:
            raise
        raise UserError(f"{doing}: {words}: {remedies}") from None
