"""Images per second of one core through the data path, ours against the predecessor's, in turns.

OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.data --data bccd.yaml
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.predecessor import FloatDataset
from datasets import DetectionDataset, TrainBatches, make_loader
from utils.augmentation import resize_image
from utils.augmentation_policy import AugmentationPolicy
from utils.batch import Sample, collate
from utils.data_config import load_data_config
from utils.image_cache import cache_size, make_cache_files
from utils.images import read_image
from utils.label_index import open_index
from utils.machine import keep_memory
from utils.options import LABEL_TYPES
from utils.size_rule import SizeRule

WAYS = {  # name -> our policy, the predecessor's arguments
    "plain": (AugmentationPolicy(flip=0.5), {}),
    "--use-train-aug": (AugmentationPolicy(flip=0.5, photometric=True), {"photometric": True}),
    "--mosaic 1": (AugmentationPolicy(flip=0.5, mosaic=1.0), {"mosaic": True}),
}
BATCH = 8


class Samples(Protocol):
    """What has samples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> object: ...


class Runner:
    """A process that loads samples, as a worker of a loader does; the memory of one way is so none of another's."""

    def __init__(self, samples: Samples, *, is_ours: bool) -> None:
        self._pipe, theirs = multiprocessing.get_context("fork").Pipe()
        arguments = (samples, is_ours, theirs)
        multiprocessing.get_context("fork").Process(target=_serve, args=arguments, daemon=True).start()

    def milliseconds(self, numbers: Sequence[int]) -> float:
        """Per sample."""
        self._pipe.send(numbers)
        return self._pipe.recv()


def _serve(samples: Samples, is_ours: bool, pipe: Connection) -> None:
    cv2.setNumThreads(0)
    if is_ours:
        keep_memory()  # as our workers do
    while True:
        numbers = pipe.recv()
        started = time.perf_counter()
        for i in numbers:
            samples[i]
        pipe.send((time.perf_counter() - started) / len(numbers) * 1e3)


def main() -> None:
    """Interleave both ways, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Images per second of one core, ours against the predecessor's way.")
    parser.add_argument("--data", required=True, help="a data set with Pascal VOC labels")
    parser.add_argument("--label-type", default="pascal_voc", choices=LABEL_TYPES)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=60, help="images a round")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    config = load_data_config(Path(options.data))
    index = open_index(config, "train", options.label_type)
    rule = SizeRule(options.imgsz, square=True)
    numbers = np.random.default_rng(0).permutation(len(index))[: options.images].tolist()
    for name, (policy, arguments) in WAYS.items():
        ours, cached = (DetectionDataset(index, rule, policy=policy) for _ in range(2))
        (path,), _ = make_cache_files("ram", [cache_size(cached.base_sizes())], Path())
        cached.keep_images(path)
        theirs = FloatDataset(config.splits["train"], config.classes, options.imgsz, **arguments)
        ways = (Runner(theirs, is_ours=False), Runner(ours, is_ours=True), Runner(cached, is_ours=True))
        for way in ways:
            way.milliseconds(range(len(index)))  # imports; fills the cache
        rounds = [[way.milliseconds(numbers) for way in ways] for _ in range(options.rounds)]
        old, new, kept = (median(times) for times in zip(*rounds, strict=True))
        print(
            f"{name}: predecessor's way {old:.2f}, ours {new:.2f} ms an image, {old / new:.1f} times as fast; "
            f"with --cache ram {kept:.2f}, {old / kept:.1f} times"
        )
    image, _ = FloatDataset(config.splits["train"], config.classes, options.imgsz)[0]
    dataset = DetectionDataset(index, rule)
    sample = dataset[0]
    print(f"bytes of a sample: {image.nbytes} and {sample.image.nbytes}, {image.nbytes / sample.image.nbytes:.1f} to 1")
    paths = [index.path(i) for i in numbers]
    plain, own = milliseconds_in_turns((_by_opencv, read_image), paths * options.rounds)
    print(f"decoding alone: with OpenCV {plain:.2f}, ours, with all its checks, {own:.2f} ms an image")
    images = [read_image(path) for path in paths]
    plain, own = milliseconds_in_turns((_taller_by_opencv, _taller), images * options.rounds)
    print(f"resizing alone, to 4/3 of the height: with OpenCV {plain:.2f}, ours {own:.2f} ms an image")
    print(f"collate: {collate_milliseconds([sample] * BATCH):.3f} ms an image, in the worker")
    own, torchs = main_process_milliseconds(dataset, options.rounds)
    print(f"main process, with a worker: {own:.3f} ms of CPU an image; with torch's DataLoader {torchs:.3f}")


def milliseconds_in_turns(ways: Sequence[Callable[[Any], object]], things: Sequence[Any]) -> tuple[float, ...]:
    """The median of each way, per thing."""
    times = []
    for thing in things:
        times.append([])
        for way in ways:
            started = time.perf_counter()
            way(thing)
            times[-1].append((time.perf_counter() - started) * 1e3)
    return tuple(median(column) for column in zip(*times, strict=True))


def _by_opencv(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)


def _taller_by_opencv(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(image, (width, height * 4 // 3), interpolation=cv2.INTER_LINEAR)


def _taller(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return resize_image(image, height * 4 // 3, width)


def main_process_milliseconds(dataset: DetectionDataset, rounds: int) -> tuple[float, float]:
    """CPU time per image in this process, of our loader and of torch's; the first epoch starts the workers."""
    batches = TrainBatches(len(dataset), BATCH, seed=0)
    ours = make_loader(dataset, batches, 1, torch.device("cpu"))
    theirs = DataLoader(dataset, batch_sampler=batches, num_workers=1, collate_fn=collate, persistent_workers=True)
    times = []
    for _ in range(1 + rounds):
        times.append([])
        for loader in (ours, theirs):
            started = time.process_time()
            for _ in loader:
                pass
            times[-1].append((time.process_time() - started) / len(dataset) * 1e3)
    ours.close()
    return tuple(median(column) for column in zip(*times[1:], strict=True))


def collate_milliseconds(samples: Sequence[Sample]) -> float:
    """Per image, of a batch of these."""
    times = []
    for _ in range(20):
        started = time.perf_counter()
        collate(samples)
        times.append((time.perf_counter() - started) / len(samples) * 1e3)
    return median(times)


if __name__ == "__main__":
    main()
