"""A split of a data set as batches for the detector; and, as a script, tools for data sets.

python datasets.py check --data data_configs/smoke.yaml
python datasets.py convert --data data_configs/smoke.yaml --to coco --output smoke_coco
"""

import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.augment.policy import AugmentationPolicy
from utils.augment.transforms import Augmenter, LabeledImage, resize_image, scaled
from utils.cli.options import CheckOptions, ConvertOptions
from utils.cli.script import run_commands
from utils.errors import DataError
from utils.images.image_files import DamagedImageError
from utils.labels.index import LabelIndex
from utils.loading.image_cache import ImageCache, RecentImages
from utils.loading.sample import DAMAGED, Sample
from utils.loading.sample_rng import CountedRandom
from utils.loading.size_rule import SizeRule, padded
from utils.machine import cores

if TYPE_CHECKING:  # heavy imports wait until they are needed, so that --help answers at once
    import torch

    from utils.loading.loader import Loader

_MOST_DAMAGED = 16  # images in a row that stand in for another: the disk is at fault then
_COPIES_APART = 1 << 20  # epochs, more than a run has
BATCHES_BACK = 8  # to an image that is mixed in: so many workers can be at work on those between
log = logging.getLogger("datasets")


class MixSource(NamedTuple):
    """An image, and its place in the order in which this process goes through an epoch, if it has one there."""

    image: int
    place: int | None = None


class SampleKey(NamedTuple):
    """What a sample is made of: an image, and those that a policy may mix in."""

    image: int
    epoch: int = 0
    place: int | None = None
    others: tuple[MixSource, ...] = ()


class DetectionDataset:
    """The images of an index, each resized once by the size rule, and augmented where a policy says so.

    `dataset[i]` is image i as epoch 0 sees it, `dataset[i, epoch]` as that epoch does, with any images mixed in; a Pick
    names these. What is random about a sample depends on seed, epoch and its images alone: not on workers, or what was
    loaded before.

    An image that cannot be decoded is named in the sample's faults. With a policy, for training, the next image stands
    in for it; without one its sample is marked as DAMAGED.
    """

    def __init__(
        self, index: LabelIndex, size_rule: SizeRule, *, policy: AugmentationPolicy | None = None, seed: int = 0
    ) -> None:
        self.index = index
        self.size_rule = size_rule
        self.policy = policy
        self._random = CountedRandom(seed)
        self._augment = Augmenter(policy or AugmentationPolicy())
        self._cache: ImageCache | RecentImages | None = None
        if policy or size_rule.square:
            import utils.augment.kernels  # noqa: F401 - before workers are forked: they need not do it again

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | tuple[int, int] | SampleKey) -> Sample:
        pick = SampleKey(*key) if isinstance(key, tuple) else SampleKey(key)
        i = pick.image
        rng = self._random.at(pick.epoch, i)
        wanted = self._augment.policy.others
        others = pick.others or (map(MixSource, rng.integers(len(self), size=wanted).tolist()) if wanted else ())
        height, width = self.index.sizes[i].tolist()
        network_size = self.size_rule.network_size(height, width)
        faults: list[str] = []
        load = partial(self._load_or_next, faults=faults) if self.policy else self._load
        try:
            picture = self._augment(load, (MixSource(i, pick.place), *others), network_size, rng)
        except DamagedImageError as error:
            black, no_boxes = np.zeros((*network_size, 3), np.uint8), np.empty((0, 4), np.float32)
            return Sample(black, (height, width), DAMAGED, no_boxes, np.empty(0, np.int32), (str(error),))
        return Sample(picture.image, (height, width), i, picture.boxes, picture.labels, tuple(faults))

    def base_sizes(self) -> np.ndarray:
        """(N, 2) int64, height and width of every image as augmentation starts from it."""
        sizes, which = np.unique(self.index.sizes, axis=0, return_inverse=True)
        base = [self._augment.base_size(self.size_rule.network_size(*size)) for size in sizes.tolist()]
        return np.array(base)[which.reshape(-1)]

    def plain(self) -> "DetectionDataset":
        """The same images without augmentation; from the same cache, if it has them at their network size."""
        plain = DetectionDataset(self.index, self.size_rule)
        if self.keeps_images and np.array_equal(plain.base_sizes(), self.base_sizes()):
            plain._cache = self._cache
        return plain

    @property
    def keeps_images(self) -> bool:
        """Whether each is decoded once only."""
        return isinstance(self._cache, ImageCache)

    def keep_images(self, path: str) -> None:
        """Keep images at their base size in a file for an ImageCache, once they are made."""
        self._cache = ImageCache(path, self.base_sizes())

    def keep_recent(self, places: int) -> None:
        """Keep those of so many places of an order alone, see RecentImages; OSError where there is no memory."""
        self._cache = RecentImages(places, self.base_sizes())

    def try_policy(self) -> None:
        """Try a user's transforms on images as small and as large as ours; DataError where one of them fails."""
        if self.policy is None or self.policy.config is None:
            return
        sizes = self.index.sizes
        extremes = {int(which) for which in (*sizes.argmin(0), *sizes.argmax(0))}
        networks = [self.size_rule.network_size(*map(int, sizes[i])) for i in extremes]
        self.policy.config.check({scaled(size, factor) for size in networks for factor in self.policy.scales})

    def _load(self, shown: MixSource) -> LabeledImage:
        """An image at its base size, which all augmentation starts from, with the boxes to train on."""
        i = shown.image
        image = self._base_image(shown)
        height, width = self.index.sizes[i].tolist()
        rows = self.index.rows(i)
        boxes, labels, ignored = self.index.boxes[rows], self.index.labels[rows], self.index.ignored[rows]
        if np.count_nonzero(ignored):
            boxes, labels = boxes[~ignored], labels[~ignored]
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        return LabeledImage(image, boxes * scale, labels)

    def _load_or_next(self, shown: MixSource, faults: list[str]) -> LabeledImage:
        """An image, or the next that can be decoded; `faults` gets what was wrong."""
        tries = min(_MOST_DAMAGED, len(self))
        for k in range(tries):
            try:
                return self._load(MixSource((shown.image + k) % len(self)) if k else shown)
            except DamagedImageError as error:  # noqa: PERF203 - rare
                faults.append(str(error))
        raise DataError(f"{tries} images in a row cannot be decoded; {faults[-1]}")

    def _base_image(self, shown: MixSource) -> np.ndarray:
        """The pixels of it: (H, W, 3) uint8 RGB, read-only where others see them too."""
        if self._cache is not None and (kept := self._cache.get(*shown)) is not None:
            return kept
        height, width = self.index.sizes[shown.image].tolist()
        size = self._augment.base_size(self.size_rule.network_size(height, width))
        image = _resized(self.index.pixels(shown.image), *size)
        if self._cache is not None:
            self._cache.put(shown.image, image, shown.place)
        return image


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """As resize_image, in a third of the time where the height alone changes, as of 640 x 480 px for 640 x 640."""
    if image.shape[1] != width or image.shape[0] == height:
        return resize_image(image, height, width)
    from utils.augment.kernels import resize_height

    return resize_height(image, height)


class TrainBatchSampler:
    """Shuffled batches of dataset keys, shared among the processes of a distributed run.

    The order depends on seed and epoch alone. All processes together go through the same global batches as one process
    with a batch `world_size` times as large; the last batch is short, and some images fill up so that every process
    has as many.

    Images to mix in are those of the same order that were shown 8 global batches ago, 16, 24 and so on, less far apart
    where an epoch is too short for that; for its first samples the last ones. So all are mixed in equally often, with
    others in every epoch, and a process that remembers what it has shown need not decode them again.

    Args:
        images: how many there are.
        others: how many to mix into each sample.
        repeat: (images,) of at least 1, how often an epoch shows each image on average; whole copies and, by chance,
            one more. Every epoch is as long, and the copies within one are augmented differently.

    Attributes:
        epoch: which one an iteration goes through.
        start: its first step; more than 0 where the rest of an epoch is left.
        shown: images in an epoch, each as often as it is repeated.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        others: int = 0,
        repeat: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = self.start = 0
        self.shown = images if repeat is None else math.ceil(repeat.sum() - 1e-9)  # sums of 1.0 may be a bit more
        self._ends = None if repeat is None else np.cumsum(repeat) * (self.shown / repeat.sum())
        whole, most = batch_size * world_size, self.shown // (others + 1)
        apart = min(BATCHES_BACK, most // whole) * whole or max(1, most)
        self._back = range(apart, apart * others + 1, apart)  # of all processes' samples

    def __len__(self) -> int:
        return -(-self.places // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = self._order()
        for start in range(self.start * self.batch_size, self.places, self.batch_size):
            places = range(start, min(start + self.batch_size, self.places))
            yield [self._pick(order, place * self.world_size + self.rank) for place in places]

    @property
    def others(self) -> int:
        """Images to mix into each sample."""
        return len(self._back)

    @property
    def others_are_own(self) -> bool:
        """Whether they are images that this process itself has shown, but for those of the first samples."""
        return self.others > 0 and self._back.step % self.world_size == 0

    @property
    def history(self) -> int:
        """Places of this process between a sample and the furthest that is mixed in."""
        return -(-self.others * self._back.step // self.world_size)

    @property
    def places(self) -> int:
        """Samples of this process in an epoch."""
        return -(-self.shown // self.world_size)

    def go_to(self, epoch: int, images: int = 0, *, multiple_of: int = 1) -> None:
        """Let the next iteration be through this epoch, without the `images` that all processes have seen of it.

        Args:
            multiple_of: the first step is one of these, as it was where batch size and processes are the same.
        """
        steps = min(-(-images // (self.batch_size * self.world_size)), len(self))
        self.epoch, self.start = epoch, steps if steps == len(self) else steps // multiple_of * multiple_of

    def _order(self) -> np.ndarray:
        """(shown, 2) int64: image and epoch; a copy of an image is as some other, far epoch has it."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self._ends is None:
            order = rng.permutation(self.images)
            return np.column_stack([order, np.full(len(order), self.epoch)])
        # Image i spans ends[i - 1] to ends[i], and is shown for each point of a grid in it: step 1, shifted by chance.
        counts = np.diff(np.floor(self._ends[:-1] + rng.random()), prepend=0, append=self.shown).astype(int)
        image = np.repeat(np.arange(self.images), counts)
        copy = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rng.permutation(np.column_stack([image, self.epoch + copy * _COPIES_APART]))

    def _pick(self, order: np.ndarray, sample: int) -> SampleKey:
        """The key of a sample, counted over all processes."""
        image, epoch = order[sample % self.shown].tolist()
        others = []
        for back in self._back:
            other = (sample - back) % self.shown
            is_own = other == sample - back and self.others_are_own
            others.append(MixSource(int(order[other, 0]), other // self.world_size if is_own else None))
        return SampleKey(image, epoch, sample // self.world_size, tuple(others))


class EvalBatchSampler:
    """Every image once, or each of some, in batches of one padded shape.

    An image is so padded to multiples of 32 only, never to a larger neighbor, and is seen alike whatever the batch
    size and the number of processes.

    Args:
        images: numbers of those that are wanted, without it all.
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
    """How many RecentImages keep for a loader of so many workers: as a sample reaches back, and it is ahead of that.

    0 where no process shows the images that it mixes in: there are several, and their batches are large for the data.
    """
    from utils.loading.loader import most_steps

    if not batches.others_are_own:
        return 0
    return min(batches.history + most_steps(min(workers, cores())) * batches.batch_size, batches.places)


def make_loader(
    dataset: DetectionDataset,
    batches: TrainBatchSampler | EvalBatchSampler,
    workers: int,
    device: "torch.device",
    *,
    reported_faults: set[str] | None = None,
) -> "Loader":
    """A loader whose workers, at most one a core, live as long as it does; `told` as Loader has it."""
    from utils.loading.loader import Loader

    largest = (min(batches.batch_size, len(dataset)), *dataset.base_sizes().max(0).tolist())
    return Loader(
        dataset, batches, largest=largest, workers=min(workers, cores()), device=device, reported_faults=reported_faults
    )


def convert_command(options: ConvertOptions) -> None:
    """Write a data set in another label format: images copied, labels written anew."""
    from utils.data_tools.convert import convert
    from utils.data_tools.demo import make_demo
    from utils.labels.data_config import load_data_config
    from utils.logs import setup_logging

    setup_logging()
    config = load_data_config(options.data)
    if config.generate is not None:
        make_demo(config)
    path = convert(config, options.label_type, options.to, Path(options.output), drop_unknown=options.drop_unknown)
    log.info("The converted data set is %s: --data %s --label-type %s", path.parent, path, options.to)


def check_command(options: CheckOptions) -> None:
    """Say what is wrong with a data set, and what a training does about it; exit code 2 if none would start."""
    import json

    from utils.data_tools.check import check_data
    from utils.data_tools.convert import check_new_folder
    from utils.data_tools.demo import make_demo
    from utils.data_tools.repair import repair_data
    from utils.data_tools.report import write_report
    from utils.errors import DataError
    from utils.files import write_text
    from utils.labels.data_config import load_data_config
    from utils.logs import setup_logging
    from utils.run_folder import given_folder

    setup_logging()
    config = load_data_config(options.data)
    for file in filter(None, (options.json, options.html)):
        given_folder(Path(file).parent)
    if config.generate is not None:
        make_demo(config)
    if options.fix is not None:
        check_new_folder(config, Path(options.fix))
    checked = check_data(config, options.label_type, drop_unknown=options.drop_unknown)
    for line in checked.lines(options.limit):
        log.info(line)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(checked.as_dict(), indent=1))
        log.info("All of it is in %s", options.json)
    if options.html is not None:
        write_report(Path(options.html), checked, SizeRule(options.imgsz), limit=options.limit)
        log.info("The page is %s", options.html)
    if options.fix is not None:
        path = repair_data(config, checked, Path(options.fix))
        log.info("The mended data set is %s: --data %s --label-type %s", path.parent, path, options.label_type)
    elif checked.stops:
        raise DataError(f"{options.data}: a training would not start: see the faults above that stop it")


if __name__ == "__main__":
    run_commands(
        {"check": (check_command, CheckOptions), "convert": (convert_command, ConvertOptions)}, "Tools for data sets."
    )
