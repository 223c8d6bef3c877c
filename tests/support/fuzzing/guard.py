"""Checks that a reader returns or fails with one clear line, in limited time and memory, for any file."""

import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from utils.errors import DataError

SECONDS = 60  # of one read; a hang, not a slow machine
_MEMORY = 1536 << 20  # bytes of address space on top of what the process has
_MESSAGE = 2000  # characters, without the path
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, line ends, half characters
Result = TypeVar("Result")


def mutations(most: int) -> pytest.MarkDecorator:
    """Parametrize a test with a tenth of the mutations, and in the full layer with all."""
    return pytest.mark.parametrize("count", [most // 10, pytest.param(most, marks=pytest.mark.full)])


def is_one_line(text: str, limit: int = _MESSAGE) -> bool:
    """Return True if the text is one printable line of moderate length."""
    return len(text) <= limit and not _UNFIT.search(text)


def answer(read: Callable[[], Result], path: Path) -> Result | None:
    """Return the result of `read`; None if it raises a valid DataError."""
    try:
        return read()
    except DataError as refusal:
        message = str(refusal)
    assert str(path) in message
    assert is_one_line(message.replace(str(path), "")), message
    return None


def fuzz(path: Path, count: int, make: Callable[[int], bytes], check: Callable[[Path, int], None]) -> None:
    """Write `count` mutations to `path` one after the other and check each; a failure shows the mutation."""
    for number in range(count):
        data = make(number)
        path.write_bytes(data)
        try:
            with in_time():
                check(path, number)
        except Exception as error:
            raise AssertionError(f"mutation {number}, {data[:2000]!r}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def in_time(seconds: float = SECONDS) -> Iterator[None]:
    """Fail if the body takes longer, and interrupt it if it blocks."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def late(*_: object) -> None:
        raise AssertionError(f"still busy after {seconds} s")  # no OSError, which readers expect

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.perf_counter()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started < seconds


@contextlib.contextmanager
def in_memory(more: int = _MEMORY) -> Iterator[None]:
    """Limit the memory of the body to `more` bytes above the current use; on Linux only."""
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
