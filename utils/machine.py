"""What this process may use of the machine."""

import os


def cores() -> int:
    """Of this process, which may be bound to some of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
