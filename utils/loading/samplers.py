"""Order of the images in an epoch: batches of dataset keys, shared among the processes of a distributed run."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.labels.index import LabelIndex
from utils.loading.loader import max_batches_in_flight
from utils.loading.size_rule import SizeRule, padded
from utils.machine import cores

_COPIES_APART = 1 << 20  # epochs, more than a run has
BATCHES_BACK = 8  # to an image that is mixed in: so many workers can be busy with the batches in between


class MixSource(NamedTuple):
    """An image, and its position among the samples of this process in the epoch, if it has one."""

    image: int
    position: int | None = None


class SampleKey(NamedTuple):
    """Key of a sample: its image, and the images that augmentation may mix into it."""

    image: int
    epoch: int = 0
    position: int | None = None
    mixed: tuple[MixSource, ...] = ()


class TrainBatchSampler:
    """Shuffled batches of dataset keys, shared among the processes of a distributed run.

    The order depends on seed and epoch alone. All processes together go through the same global batches as one process
    with a batch `world_size` times as large. The last batch is short, and padded with further images so that every
    process has the same number.

    Images to mix in are those at 8, 16, 24 ... global batches back in the same order, less far back if the epoch is too
    short for that; indices wrap around at the epoch boundary. So every image is mixed in equally often, with different
    partners in every epoch, and a process that caches its recent images need not decode them again.

    Args:
        images: number of images.
        num_mixed: images to mix into each sample.
        repeat: (images,) of at least 1: how often an epoch has each image on average; the fraction is drawn at random.
            Every epoch has the same length, and copies within one are augmented differently.

    Attributes:
        epoch: the epoch of the next iteration.
        start: its first step; more than 0 to resume within an epoch.
        epoch_images: images in an epoch, repetitions counted.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_mixed: int = 0,
        repeat: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = self.start = 0
        self.epoch_images = (
            images if repeat is None else math.ceil(repeat.sum() - 1e-9)
        )  # sums of 1.0 may be a bit more
        self._ends = None if repeat is None else np.cumsum(repeat) * (self.epoch_images / repeat.sum())
        whole, most = batch_size * world_size, self.epoch_images // (num_mixed + 1)
        apart = min(BATCHES_BACK, most // whole) * whole or max(1, most)
        self._back = range(apart, apart * num_mixed + 1, apart)  # of all processes' samples

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = self._order()
        for start in range(self.start * self.batch_size, self.num_samples, self.batch_size):
            positions = range(start, min(start + self.batch_size, self.num_samples))
            yield [self._key(order, position * self.world_size + self.rank) for position in positions]

    @property
    def num_mixed(self) -> int:
        """Images to mix into each sample."""
        return len(self._back)

    @property
    def mixes_own_images(self) -> bool:
        """Whether this process itself loaded the images to mix in before, except those of the first samples."""
        return self.num_mixed > 0 and self._back.step % self.world_size == 0

    @property
    def history(self) -> int:
        """Samples of this process between a sample and the furthest one that is mixed into it."""
        return -(-self.num_mixed * self._back.step // self.world_size)

    @property
    def num_samples(self) -> int:
        """Samples of this process in an epoch."""
        return -(-self.epoch_images // self.world_size)

    def set_epoch(self, epoch: int, images: int = 0, *, multiple_of: int = 1) -> None:
        """Make the next iteration go through this epoch, without the first `images` of it (of all processes).

        Args:
            multiple_of: round the first step down to a multiple, so that it starts an optimizer update.
        """
        steps = min(-(-images // (self.batch_size * self.world_size)), len(self))
        self.epoch, self.start = epoch, steps if steps == len(self) else steps // multiple_of * multiple_of

    def _order(self) -> np.ndarray:
        """(epoch_images, 2) int64: image and epoch; further copies of an image are augmented as in a far epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self._ends is None:
            order = rng.permutation(self.images)
            return np.column_stack([order, np.full(len(order), self.epoch)])
        # Image i spans ends[i - 1] to ends[i], and appears once per point of a grid of step 1 with a random offset.
        counts = np.diff(np.floor(self._ends[:-1] + rng.random()), prepend=0, append=self.epoch_images).astype(int)
        image = np.repeat(np.arange(self.images), counts)
        copy = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rng.permutation(np.column_stack([image, self.epoch + copy * _COPIES_APART]))

    def _key(self, order: np.ndarray, sample: int) -> SampleKey:
        """The key of a sample, counted over all processes."""
        image, epoch = order[sample % self.epoch_images].tolist()
        mixed = []
        for back in self._back:
            other = (sample - back) % self.epoch_images
            is_own = other == sample - back and self.mixes_own_images
            mixed.append(MixSource(int(order[other, 0]), other // self.world_size if is_own else None))
        return SampleKey(image, epoch, sample // self.world_size, tuple(mixed))


class EvalBatchSampler:
    """Every image once, or a selection of images, in batches of one padded shape.

    Images are padded to multiples of 32 only, never to the size of a larger image in the batch, so that results depend
    neither on the batch size nor on the number of processes.

    Args:
        images: indices of the images; without it all of them.
    """

    def __init__(
        self,
        index: LabelIndex,
        size_rule: SizeRule,
        batch_size: int,
        *,
        images: Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i in range(len(index)) if images is None else images:
            height, width = index.sizes[i].tolist()
            network_height, network_width = size_rule.network_size(height, width)
            by_shape.setdefault((padded(network_height), padded(network_width)), []).append(i)
        batches = [
            alike[start : start + batch_size]
            for _, alike in sorted(by_shape.items())
            for start in range(0, len(alike), batch_size)
        ]
        self.batches = batches[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def cache_slots(batches: TrainBatchSampler, workers: int) -> int:
    """Number of recent images to cache for mixing, with `workers` loading ahead; 0 if caching would not help.

    It does not help if no process mixes in its own images: several processes with batches large for the data.
    """
    if not batches.mixes_own_images:
        return 0
    return min(batches.history + max_batches_in_flight(min(workers, cores())) * batches.batch_size, batches.num_samples)
