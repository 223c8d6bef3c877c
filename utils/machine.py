"""What this process may use of the machine."""

import ctypes
import os
import sys
from pathlib import Path

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


def give_back_memory() -> None:
    """Return what was freed to the system, which the C library of Linux keeps where later objects lie above it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


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
