import gc

import numpy as np
import pytest
import torch

from utils.loading.shared_memory import SharedBlock


class Cuda:
    """Flags of page-locked memory according to the CUDA runtime."""

    def __init__(self) -> None:
        self.locked: set[int] = set()

    def cudaHostRegister(self, address: int, length: int, flags: int) -> int:
        if address in self.locked:
            return 712  # part or all of the requested memory range is already mapped
        self.locked.add(address)
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        self.locked.remove(address)
        return 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()

    def check_error(code: int) -> None:
        if code:
            raise RuntimeError(f"({code})")

    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "check_error", check_error)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return cuda


def test_locked_pages_are_let_go_with_the_last_array_of_them(cuda: Cuda) -> None:
    """CUDA kept the lock: it refused a later block at the same address, or read unmapped pages."""
    block = SharedBlock(8192)
    for start in (0, 4096):
        block.lock_pages(start, 4096)
    batch = torch.from_numpy(block.array[10:20])
    del block
    gc.collect()
    assert len(cuda.locked) == 2
    batch[:] = 1
    del batch
    gc.collect()
    assert cuda.locked == set()


def test_blocks_one_after_the_other(cuda: Cuda) -> None:
    for _ in range(5):
        block = SharedBlock(1 << 20)
        block.lock_pages(0, 1 << 20)
        assert len(cuda.locked) == 1
        np.testing.assert_array_equal(block.array[:10], 0)
        del block
        gc.collect()


def test_pages_that_are_locked_already_are_refused(cuda: Cuda) -> None:
    block = SharedBlock(4096)
    block.lock_pages(0, 4096)
    with pytest.raises(RuntimeError, match="712"):
        block.lock_pages(0, 4096)
