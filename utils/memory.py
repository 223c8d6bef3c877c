"""Memory that does not suffice, told apart from our own mistakes and said in a user's words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from utils.errors import UserError

# Of a RuntimeError: c10/core/impl/alloc_cpu.cpp; the CUDA runtime and its libraries, beside torch's own allocator; and
# aten/src/ATen/native/cudnn/Conv_v8.cpp, where none of cuDNN's plans found the memory that it needs.
_ON_CPU = re.compile(r"DefaultCPUAllocator: (.*you tried to allocate \d+ bytes)")
_ON_GPU = re.compile(
    r"CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED|unable to find an engine to execute this computation"
)


def full_memory(error: BaseException) -> str | None:
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
def memory_watch(doing: str, remedies: str) -> Iterator[None]:
    """Say where the memory became full, and what to do; every other error passes.

    Args:
        doing: such as "epoch 3, step 17, 8 images of 640 x 640 px".

    Raises:
        UserError: it did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = full_memory(error)
        if words is None:
            raise
        raise UserError(f"{doing}: {words}: {remedies}") from None
