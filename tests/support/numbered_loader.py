"""A loader of images that are filled with their number."""

import os
import signal

import numpy as np
import torch

from utils.errors import DataError
from utils.loading.loader import Loader
from utils.loading.sample import Sample

CPU = torch.device("cpu")


class Numbers:
    """Sample k is an image of height 10 + k, filled with k, with k boxes."""

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble

    def __getitem__(self, k: int) -> Sample:
        if k == 5 and self.trouble == "user's":
            raise DataError("a.jpg: no such file")
        if k == 5 and self.trouble == "ours":
            raise ZeroDivisionError("our mistake")
        if k == 5 and self.trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if k == 5 and self.trouble == "exit":
            os._exit(3)
        faults = ("b.jpg: cut off",) if k % 2 else ()
        boxes, labels = np.full((k, 4), k, np.float32), np.full(k, k)
        return Sample(np.full((10 + k, 20, 3), k, np.uint8), (k, k), k, boxes, labels, faults)


def loader(workers: int, trouble: str = "", *, count: int = 12, largest=(3, 64, 32)) -> Loader:
    keys = [list(range(start, min(start + 3, count))) for start in range(0, count, 3)]
    return Loader(Numbers(trouble), keys, largest=largest, workers=workers, device=CPU)
