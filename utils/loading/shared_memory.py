"""Memory shared by several processes."""

import atexit
import mmap
import multiprocessing
import os
import weakref
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np


class _Memory(SharedMemory):
    """SharedMemory that stays mapped until the process ends, as arrays in it may; the base class would warn."""

    def __del__(self) -> None:
        pass


class SharedBlock:
    """Zeroed bytes shared with processes started by this one; pages are allocated on first write.

    With forked processes it needs no /dev/shm, which has 64 MB in most containers.

    Attributes:
        array: (size,) uint8.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        forked = multiprocessing.get_start_method() == "fork"
        self._memory = None if forked else _Memory(create=True, size=self.size)
        if self._memory is not None:
            atexit.register(self._memory.unlink)
        self.array = np.frombuffer(mmap.mmap(-1, self.size) if forked else self._memory.buf, np.uint8, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self.size, self._memory.name)

    def lock_pages(self, start: int, length: int) -> None:
        """Page-lock a part, for asynchronous copies to a GPU, until no array of this memory is left.

        Raises:
            RuntimeError: it cannot be locked.
        """
        import torch

        address = self.array[start:].ctypes.data
        torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(address, length, 0))
        weakref.finalize(self.array, _unlock_pages, os.getpid(), address).atexit = False


def _unlock_pages(process: int, address: int) -> None:
    """Unlock before the memory is unmapped: CUDA would take later mappings there for locked, and read wrong pages."""
    import torch

    if process == os.getpid():  # locked by this process, not by one that it was forked from
        torch.cuda.synchronize()  # a copy may be running
        torch.cuda.cudart().cudaHostUnregister(address)


def _attach(size: int, name: str) -> SharedBlock:
    block = SharedBlock.__new__(SharedBlock)
    block.size, block._memory = size, _Memory(name)
    block.array = np.frombuffer(block._memory.buf, np.uint8, size)
    return block
