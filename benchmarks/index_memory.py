"""Measure the memory of the label index of a large data set, in the main process and loader workers (Linux).

python -m benchmarks.index_memory --images 1000000

Makes a YOLO data set of links to one image and one label file, opens it as training does, loads samples in workers for
several epochs, and subtracts the memory of the same on a small data set. Memory is the sum of the proportional set
sizes, which count a page shared by n processes as 1/n for each.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

FEW = 1000  # images of the small data set
PER_FOLDER = 1000
EPOCHS = 4
MIB = 1 << 20


def main() -> None:
    """Measure both data sets in separate processes and print the difference."""
    parser = argparse.ArgumentParser(description="Memory of the index of a large data set.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=10, help="per image")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=1000, help="batches loaded per epoch")
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure), options.workers, options.batches)))
        return
    with tempfile.TemporaryDirectory() as folder:
        few, many = (in_own_process(Path(folder) / str(n), n, options) for n in (FEW, options.images))
    print(f"{options.images:,} images with {options.boxes} boxes each, read in {many['seconds']:.0f} s")
    print(f"arrays of the index: {many['arrays']:.0f} MiB")
    for epoch, (base, total) in enumerate(zip(few["total"], many["total"], strict=True)):
        more = f"{total - base:.0f} MiB more than with {FEW} images"
        print(f"epoch {epoch}: main process and {options.workers} workers {more}")
    print(f"peak of the main process: {many['peak'] - few['peak']:.0f} MiB more, while labels are read")


def in_own_process(folder: Path, images: int, options: argparse.Namespace) -> dict:
    """Make a data set in `folder` and measure it in a new process."""
    make(folder, images, options.boxes)
    arguments = ["--measure", folder, "--workers", options.workers, "--batches", options.batches]
    command = [sys.executable, "-m", "benchmarks.index_memory", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def make(folder: Path, images: int, boxes: int) -> None:
    """Make a YOLO data set whose files are links."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    image, label = folder / "image.jpg", folder / "label.txt"
    cv2.imwrite(str(image), rng.integers(0, 256, (48, 64, 3), np.uint8))
    label.write_text("".join(f"{k % 3} 0.{k + 10:02d} 0.5 0.1 0.2\n" for k in range(boxes)))
    for start in range(0, images, PER_FOLDER):
        folders = [folder / kind / f"{start // PER_FOLDER:04d}" for kind in ("images", "labels")]
        for subfolder in folders:
            subfolder.mkdir(parents=True)
        for i in range(start, min(images, start + PER_FOLDER)):
            os.symlink(image, folders[0] / f"{i:012d}.jpg")
            os.symlink(label, folders[1] / f"{i:012d}.txt")


def measure(folder: Path, workers: int, batches: int) -> dict:
    """MiB of the index arrays, of all processes after each epoch and peak of this process; and seconds of reading."""
    import torch

    from datasets import DetectionDataset
    from utils.augment.policy import POLICIES
    from utils.labels.data_config import parse_data_config
    from utils.labels.index import open_index
    from utils.loading.loader import Loader
    from utils.loading.samplers import TrainBatchSampler
    from utils.loading.size_rule import SizeRule

    content = {"TRAIN_DIR_IMAGES": str(folder / "images"), "TRAIN_DIR_LABELS": str(folder / "labels")}
    config = parse_data_config({**content, "CLASSES": ["__background__", "a", "b", "c"]}, folder / "data.yaml")
    started = time.perf_counter()
    index = open_index(config, "train", "yolo")
    seconds = time.perf_counter() - started
    arrays = (index.sizes, index.as_stored, index.offsets, index.boxes, index.labels, index.ignored)
    dataset = DetectionDataset(index, SizeRule(64), policy=POLICIES["default"])
    order = TrainBatchSampler(len(dataset), 8, seed=0)
    loader = Loader(dataset, _First(order, batches), largest=(8, 64, 96), workers=workers, device=torch.device("cpu"))
    total = []
    for order.epoch in range(EPOCHS):
        for _ in loader:
            pass
        pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
        total.append(sum(map(proportional_set_size, pids)) / MIB)
    loader.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    nbytes = sum(array.nbytes for array in arrays) + index.files.names.nbytes
    return {"arrays": nbytes / MIB, "total": total, "peak": peak, "seconds": seconds}


class _First:
    """The first `count` batches."""

    def __init__(self, batches: "TrainBatchSampler", count: int) -> None:  # noqa: F821
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return min(self.count, len(self.batches))

    def __iter__(self):
        return islice(iter(self.batches), self.count)


def proportional_set_size(pid: int) -> int:
    """Proportional set size of a process in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


if __name__ == "__main__":
    main()
