"""What this process may use of the machine."""

import ctypes
import os
import sys
from pathlib import Path

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


def give_back_memory() -> None:
    """Return what was freed to the system, which the C library of Linux keeps where later objects lie above it."""
    _glibc("malloc_trim", 0)


def keep_memory() -> None:
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
