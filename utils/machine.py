"""CPU cores and memory of this machine, and detection of out-of-memory errors."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MAX_MMAP_THRESHOLD = 32 << 20  # bytes, the limit of glibc
_TRIM_THRESHOLD = 256 << 20  # bytes of freed memory that are kept
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = (  # limit, usage, statistics; of version 2 and 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes available without swapping, within the container's limit."""
    import psutil

    return min(psutil.virtual_memory().available, _cgroup_free(cgroup))


def resident_memory() -> int:
    """Resident memory of this process in bytes, shared memory included."""
    import psutil

    return psutil.Process().memory_info().rss


def release_memory() -> None:
    """Return freed memory to the system; glibc keeps it below objects that are still in use."""
    _glibc("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next image; otherwise each is mapped anew and its pages are zeroed."""
    _glibc("mallopt", _M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _TRIM_THRESHOLD)


def _glibc(function: str, *arguments: int) -> None:
    """Call a function of glibc, if the C library has it."""
    if sys.platform == "linux":
        call = getattr(ctypes.CDLL(None), function, None)
        if call is not None:
            call(*arguments)


def _cgroup_free(cgroup: Path) -> float:
    """Bytes up to the memory limit of a cgroup; inactive file pages count as free."""
    for limit, usage, statistics in _CGROUP_FILES:
        try:
            maximum, used = (int((cgroup / name).read_text()) for name in (limit, usage))
            lines = (cgroup / statistics).read_text().splitlines()
        except (OSError, ValueError):  # no such cgroup, or its limit is the word "max"
            continue
        idle = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        return max(0, maximum - used + idle)
    return float("inf")


# Messages of RuntimeError: c10/core/impl/alloc_cpu.cpp; the CUDA runtime and its libraries, beside torch's allocator;
# and aten/src/ATen/native/cudnn/Conv_v8.cpp, if none of cuDNN's plans can allocate its memory.
_ON_CPU = re.compile(r"DefaultCPUAllocator: (.*you tried to allocate \d+ bytes)")
_ON_GPU = re.compile(
    r"CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED|unable to find an engine to execute this computation"
)


def out_of_memory_message(error: BaseException) -> str | None:
    """Describe which memory is full if the error is an out-of-memory error, else None."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch for it would make --help slow
        return f"the memory of the GPU is full ({text.splitlines()[0]})"
    if isinstance(error, MemoryError):
        return "the memory of this machine is full" + (f" ({text.splitlines()[0]})" if text else "")
    if isinstance(error, RuntimeError):
        if match := _ON_GPU.search(text):
            return f"the memory of the GPU is full ({match[0]})"
        if match := _ON_CPU.search(text):
            return f"the memory of this machine is full ({match[1]})"
    return None


@contextmanager
def explain_out_of_memory(step: str, remedies: str) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError that says where they happened and what to do.

    Args:
        step: for example "epoch 3, step 17, 8 images of 640 x 640 px".
        remedies: for example "lower --batch".

    Raises:
        UserError: the memory is full; other errors pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = out_of_memory_message(error)
        if message is None:
            raise
        raise UserError(f"{step}: {message}: {remedies}") from None
