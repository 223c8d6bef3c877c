"""Measure the data path on one core, ours against the predecessor's, in turns.

OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.data --data bccd.yaml
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.common.predecessor import FloatDataset
from datasets import DetectionDataset, make_loader
from utils.augment.kernels import resize_height
from utils.augment.policy import AugmentationPolicy
from utils.cli.options import LABEL_TYPES
from utils.images.image_files import read_image
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index
from utils.loading.batch import collate
from utils.loading.image_cache import cache_size, make_cache_files
from utils.loading.sample import Sample
from utils.loading.samplers import BATCHES_BACK, TrainBatchSampler, cache_slots
from utils.loading.size_rule import SizeRule
from utils.machine import keep_freed_memory

WAYS = {  # name -> our policy, arguments of the predecessor's data set
    "plain": (AugmentationPolicy(flip=0.5), {}),
    "--use-train-aug": (AugmentationPolicy(flip=0.5, photometric=True), {"photometric": True}),
    "--mosaic 1": (AugmentationPolicy(flip=0.5, mosaic=1.0), {"mosaic": True}),
}
BATCH = 8
_REPEATS = 5  # of the measurement of a single stage
_START = BATCHES_BACK * 3 * BATCH  # samples until a mosaic uses images loaded before


class KeyedSamples(Protocol):
    """Samples by key."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> object: ...


class Runner:
    """A process that loads samples like a loader's worker; separate processes keep memory use apart."""

    def __init__(self, samples: KeyedSamples, *, is_ours: bool) -> None:
        self._pipe, theirs = multiprocessing.get_context("fork").Pipe()
        arguments = (samples, is_ours, theirs)
        multiprocessing.get_context("fork").Process(target=_serve, args=arguments, daemon=True).start()

    def milliseconds(self, keys: Sequence[Any]) -> float:
        """Milliseconds per sample."""
        self._pipe.send(keys)
        return self._pipe.recv()


def _serve(samples: KeyedSamples, is_ours: bool, pipe: Connection) -> None:
    cv2.setNumThreads(0)
    if is_ours:
        keep_freed_memory()  # as our workers do
    while True:
        keys = pipe.recv()
        started = time.perf_counter()
        for key in keys:
            samples[key]
        pipe.send((time.perf_counter() - started) / len(keys) * 1e3)


def main() -> None:
    """Measure all variants in turns; print medians, and the medians of the rounds' ratios."""
    parser = argparse.ArgumentParser(description="Images per second of one core, ours against the predecessor's way.")
    parser.add_argument("--data", required=True, help="a data set with Pascal VOC labels")
    parser.add_argument("--label-type", default="pascal_voc", choices=LABEL_TYPES)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=20, help="images a round")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    config = load_data_config(Path(options.data))
    index = open_index(config, "train", options.label_type)
    rule = SizeRule(options.imgsz, square=True)
    # One epoch as long as that of a data set too large to be cached, with repeated images.
    length = _START + options.rounds * options.images
    repeat = np.full(len(index), 1 + length / len(index))
    for name, (policy, arguments) in WAYS.items():
        batches = TrainBatchSampler(len(index), BATCH, seed=0, num_mixed=policy.num_mixed, repeat=repeat)
        sample_keys = chain.from_iterable(batches)
        ours, cached = (DetectionDataset(index, rule, policy=policy) for _ in range(2))
        if policy.num_mixed:
            ours.keep_recent(cache_slots(batches, workers=1))
        (path,), _ = make_cache_files("ram", [cache_size(cached.base_sizes())], Path())
        cached.keep_images(path)
        theirs = FloatDataset(config.splits["train"], config.classes, options.imgsz, **arguments)
        ways = (Runner(theirs, is_ours=False), Runner(ours, is_ours=True), Runner(cached, is_ours=True))
        first = (range(len(index)), list(islice(sample_keys, _START)), range(len(index)))
        for way, keys in zip(ways, first, strict=True):
            way.milliseconds(keys)  # imports; fills the caches
        rounds = []
        for _ in range(options.rounds):
            keys = list(islice(sample_keys, options.images))
            image_numbers = [key.image for key in keys]
            rounds.append([way.milliseconds(k) for way, k in zip(ways, (image_numbers, keys, keys), strict=True)])
        old, new, kept = np.array(rounds).T
        print(
            f"{name}: predecessor {median(old):.2f}, ours {median(new):.2f} ms an image, {median(old / new):.1f} "
            f"times as fast; with --cache ram {median(kept):.2f}, {median(old / kept):.1f} times",
            flush=True,
        )
    image, _ = FloatDataset(config.splits["train"], config.classes, options.imgsz)[0]
    dataset = DetectionDataset(index, rule)
    sample = dataset[0]
    print(f"bytes of a sample: {image.nbytes} and {sample.image.nbytes}, {image.nbytes / sample.image.nbytes:.1f} to 1")
    paths = [index.path(i) for i in range(min(len(index), 60))]
    opencv, ours_ms = milliseconds_in_turns((_by_opencv, read_image), paths * _REPEATS)
    print(f"decoding alone: with OpenCV {opencv:.2f}, ours, with all its checks, {ours_ms:.2f} ms an image")
    images = [read_image(path) for path in paths]
    opencv, ours_ms = milliseconds_in_turns((_taller_by_opencv, _taller), images * _REPEATS)
    print(f"resizing alone, to 4/3 of the height: with OpenCV {opencv:.2f}, ours {ours_ms:.2f} ms an image")
    print(f"collate: {collate_milliseconds([sample] * BATCH):.3f} ms an image, in the worker")
    ours_ms, torch_ms = main_process_milliseconds(dataset, _REPEATS)
    print(f"main process, with a worker: {ours_ms:.3f} ms of CPU an image; with torch's DataLoader {torch_ms:.3f}")


def milliseconds_in_turns(functions: Sequence[Callable[[Any], object]], items: Sequence[Any]) -> tuple[float, ...]:
    """Median time of each function per item, called in turns."""
    times = []
    for item in items:
        times.append([])
        for function in functions:
            started = time.perf_counter()
            function(item)
            times[-1].append((time.perf_counter() - started) * 1e3)
    return tuple(median(column) for column in zip(*times, strict=True))


def _by_opencv(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)


def _taller_by_opencv(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(image, (width, height * 4 // 3), interpolation=cv2.INTER_LINEAR)


def _taller(image: np.ndarray) -> np.ndarray:
    return resize_height(image, len(image) * 4 // 3)


def main_process_milliseconds(dataset: DetectionDataset, rounds: int) -> tuple[float, float]:
    """CPU time per image in this process, with our loader and with torch's; the first epoch is not counted."""
    batches = TrainBatchSampler(len(dataset), BATCH, seed=0)
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
    """Milliseconds per image to collate a batch of these samples."""
    times = []
    for _ in range(20):
        started = time.perf_counter()
        collate(samples)
        times.append((time.perf_counter() - started) / len(samples) * 1e3)
    return median(times)


if __name__ == "__main__":
    main()
