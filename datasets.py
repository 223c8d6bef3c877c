"""A split of a data set as batches for the detector; and, as a script, tools for data sets.

python datasets.py check --data data_configs/smoke.yaml
python datasets.py convert --data data_configs/smoke.yaml --to coco --output smoke_coco
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.augmentation import AugmentationPolicy, Labelled, Photometric, flip_left_right, mosaic, resize
from utils.label_index import LabelIndex
from utils.machine import cores
from utils.options import CheckOptions, ConvertOptions
from utils.script import run_commands
from utils.size_rule import SizeRule, padded

if TYPE_CHECKING:  # heavy imports wait until they are needed, so that --help answers at once
    import torch
    from torch.utils.data import DataLoader

    from utils.batch import Batch, Sample

log = logging.getLogger("datasets")


class DetectionDataset:
    """The images of an index, each resized once by the size rule, and augmented where a policy says so.

    `dataset[i]` is image i as epoch 0 sees it, `dataset[i, epoch]` as that epoch does. What is random about a sample
    depends on seed, epoch and i alone: not on workers, batch size or what was loaded before.
    """

    def __init__(
        self, index: LabelIndex, size_rule: SizeRule, *, policy: AugmentationPolicy | None = None, seed: int = 0
    ) -> None:
        self.index = index
        self.size_rule = size_rule
        self.policy = policy or AugmentationPolicy()
        self.seed = seed
        self._photometric = Photometric()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | tuple[int, int]) -> "Sample":
        from utils.batch import Sample

        i, epoch = key if isinstance(key, tuple) else (key, 0)
        rng = np.random.default_rng([self.seed, epoch, i])
        height, width = map(int, self.index.sizes[i])
        network_size = self.size_rule.network_size(height, width)
        if rng.random() < self.policy.mosaic:
            others = rng.integers(len(self), size=3)
            picture = mosaic([self._load(int(k)) for k in (i, *others)], *network_size, rng)
        else:
            picture = resize(self._load(i), *network_size)
        if rng.random() < self.policy.flip:
            picture = flip_left_right(picture)
        image = self._photometric(picture.image, rng) if self.policy.photometric else picture.image
        return Sample(image, (height, width), i, picture.boxes, picture.labels)

    def _load(self, i: int) -> Labelled:
        """Image i with the boxes to train on, in its original pixels."""
        rows = self.index.rows(i)
        wanted = ~self.index.ignored[rows]
        return Labelled(self.index.pixels(i), self.index.boxes[rows][wanted], self.index.labels[rows][wanted])


class TrainBatches:
    """Shuffled batches of dataset keys, shared among the processes of a distributed run.

    The order depends on seed and epoch alone. All processes together go through the same global batches as one process
    with a batch `world_size` times as large; the last batch is short, and some images fill up so that every process
    has as many.
    """

    def __init__(self, images: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self._share() // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.images)
        order = np.resize(order, self._share() * self.world_size)[self.rank :: self.world_size]
        for start in range(0, len(order), self.batch_size):
            yield [(int(i), self.epoch) for i in order[start : start + self.batch_size]]

    def _share(self) -> int:
        return -(-self.images // self.world_size)


class EvalBatches:
    """Every image once, in batches of one padded shape.

    An image is so padded to multiples of 32 only, never to a larger neighbour, and is seen alike whatever the batch
    size and the number of processes.
    """

    def __init__(
        self, index: LabelIndex, size_rule: SizeRule, batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i, (height, width) in enumerate(index.sizes.tolist()):
            network_height, network_width = size_rule.network_size(height, width)
            by_shape.setdefault((padded(network_height), padded(network_width)), []).append(i)
        batches = [
            images[start : start + batch_size]
            for _, images in sorted(by_shape.items())
            for start in range(0, len(images), batch_size)
        ]
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def make_loader(
    dataset: DetectionDataset, batches: TrainBatches | EvalBatches, workers: int, device: "torch.device"
) -> "DataLoader[Batch]":
    """A loader whose workers, at most one a core, live as long as it does."""
    import torch
    from torch.utils.data import DataLoader

    from utils.batch import collate

    workers = min(workers, cores())
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own: the loader draws a seed an epoch, which must not disturb training
    )


def _one_thread(worker: int) -> None:
    import cv2

    del worker
    cv2.setNumThreads(0)


def convert_command(options: ConvertOptions) -> None:
    """Write a data set in another label format: images copied, labels written anew."""
    from utils.conversion import convert
    from utils.data_config import load_data_config
    from utils.logs import setup_logging

    setup_logging()
    config = load_data_config(options.data)
    path = convert(
        config, options.label_type, options.to, Path(options.output), drop_unknown=options.drop_unknown
    )
    log.info("The converted data set is %s: --data %s --label-type %s", path.parent, path, options.to)


def check_command(options: CheckOptions) -> None:
    """Say what is wrong with a data set, and what a training does about it; exit code 2 if it would not start."""
    import json

    from utils.data_check import check_data
    from utils.data_config import load_data_config
    from utils.data_report import write_report
    from utils.errors import DataError
    from utils.files import write_text
    from utils.logs import setup_logging

    setup_logging()
    checked = check_data(load_data_config(options.data), options.label_type)
    for line in checked.lines(options.limit):
        log.info(line)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(checked.as_dict(), indent=1))
        log.info("All of it is in %s", options.json)
    if options.html is not None:
        write_report(Path(options.html), checked, SizeRule(options.imgsz), limit=options.limit)
        log.info("The page is %s", options.html)
    if checked.stops:
        raise DataError(f"{options.data}: a training would not start: see the faults above that stop it")


if __name__ == "__main__":
    run_commands(
        {"check": (check_command, CheckOptions), "convert": (convert_command, ConvertOptions)}, "Tools for data sets."
    )
