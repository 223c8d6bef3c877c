"""A split of a data set as samples for the detector; as a script, tools for data sets.

python datasets.py check --data data_configs/smoke.yaml
python datasets.py convert --data data_configs/smoke.yaml --to coco --output smoke_coco
"""

from utils.cli.options import CheckOptions, ConvertOptions
from utils.cli.script import parse_command, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    COMMAND, OPTIONS = parse_command(
        {
            "check": (
                CheckOptions,
                "Check a data set: problems, and what training does about them; exit code 2 if it would not start.",
            ),
            "convert": (
                ConvertOptions,
                "Convert a data set to another label format: images are copied, labels written anew.",
            ),
        },
        "Tools for data sets.",
    )

from functools import partial

import numpy as np
import torch

from utils.augment.kernels import load_loops, resize_height
from utils.augment.policy import AugmentationPolicy
from utils.augment.transforms import Augmenter, LabeledImage, resize_image, scaled
from utils.errors import DataError
from utils.images.image_files import DamagedImageError, load_simplejpeg
from utils.labels.index import LabelIndex
from utils.loading.image_cache import ImageCache, RecentImages
from utils.loading.loader import Loader
from utils.loading.sample import DAMAGED, Sample
from utils.loading.sample_rng import SampleRng
from utils.loading.samplers import EvalBatchSampler, MixSource, SampleKey, TrainBatchSampler
from utils.loading.size_rule import SizeRule
from utils.machine import cores

_MOST_DAMAGED = 16  # images in a row that are replaced; more point to a faulty disk


class DetectionDataset:
    """The images of an index, resized once by the size rule, and augmented if there is a policy.

    `dataset[i]` is image i in epoch 0, `dataset[i, epoch]` in another epoch, with random images mixed in; a SampleKey
    names the images to mix in. The random choices of a sample depend on seed, epoch and its images alone, not on
    workers or on what was loaded before.

    An image that cannot be decoded is named in the sample's faults. With a policy (for training) the next image
    replaces it; without one its sample is marked as DAMAGED.
    """

    def __init__(
        self, index: LabelIndex, size_rule: SizeRule, *, policy: AugmentationPolicy | None = None, seed: int = 0
    ) -> None:
        self.index = index
        self.size_rule = size_rule
        self.policy = policy
        self._random = SampleRng(seed)
        self._augment = Augmenter(policy or AugmentationPolicy())
        self._cache: ImageCache | RecentImages | None = None
        load_simplejpeg()  # here, so that a missing one is logged by this process and not by each worker
        if policy or size_rule.square:
            load_loops()  # before workers are forked, which inherit the loops

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | tuple[int, int] | SampleKey) -> Sample:
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(key)
        i = key.image
        rng = self._random.at(key.epoch, i)
        num_mixed = self._augment.policy.num_mixed
        mixed = key.mixed or (map(MixSource, rng.integers(len(self), size=num_mixed).tolist()) if num_mixed else ())
        height, width = self.index.sizes[i].tolist()
        network_size = self.size_rule.network_size(height, width)
        faults: list[str] = []
        load = partial(self._load_or_next, faults=faults) if self.policy else self._load
        try:
            picture = self._augment(load, (MixSource(i, key.position), *mixed), network_size, rng)
        except DamagedImageError as error:
            black, no_boxes = np.zeros((*network_size, 3), np.uint8), np.empty((0, 4), np.float32)
            return Sample(black, (height, width), DAMAGED, no_boxes, np.empty(0, np.int32), (str(error),))
        return Sample(picture.image, (height, width), i, picture.boxes, picture.labels, tuple(faults))

    def base_sizes(self) -> np.ndarray:
        """(N, 2) int64, height and width of every image before augmentation."""
        sizes, which = np.unique(self.index.sizes, axis=0, return_inverse=True)
        base = [self._augment.base_size(self.size_rule.network_size(*size)) for size in sizes.tolist()]
        return np.array(base)[which.reshape(-1)]

    def plain(self) -> "DetectionDataset":
        """The same images without augmentation, from the same cache if it holds them at their network size."""
        plain = DetectionDataset(self.index, self.size_rule)
        if self.keeps_images and np.array_equal(plain.base_sizes(), self.base_sizes()):
            plain._cache = self._cache
        return plain

    @property
    def keeps_images(self) -> bool:
        """Whether every image is decoded only once."""
        return isinstance(self._cache, ImageCache)

    def keep_images(self, path: str) -> None:
        """Cache images at their base size in this file, see ImageCache."""
        self._cache = ImageCache(path, self.base_sizes())

    def keep_recent(self, slots: int) -> None:
        """Cache the images of the last `slots` samples, see RecentImages; OSError without enough memory."""
        self._cache = RecentImages(slots, self.base_sizes())

    def check_policy(self) -> None:
        """Try a user's transforms on the smallest and largest images; DataError if one of them fails."""
        if self.policy is None or self.policy.config is None:
            return
        sizes = self.index.sizes
        extremes = {int(which) for which in (*sizes.argmin(0), *sizes.argmax(0))}
        networks = [self.size_rule.network_size(*map(int, sizes[i])) for i in extremes]
        self.policy.config.check({scaled(size, factor) for size in networks for factor in self.policy.scales})

    def _load(self, source: MixSource) -> LabeledImage:
        """An image at its base size, with the boxes to train on."""
        i = source.image
        image = self._base_image(source)
        height, width = self.index.sizes[i].tolist()
        rows = self.index.rows(i)
        boxes, labels, ignored = self.index.boxes[rows], self.index.labels[rows], self.index.ignored[rows]
        if np.count_nonzero(ignored):
            boxes, labels = boxes[~ignored], labels[~ignored]
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        return LabeledImage(image, boxes * scale, labels)

    def _load_or_next(self, source: MixSource, faults: list[str]) -> LabeledImage:
        """An image, or the next one that can be decoded; problems are appended to `faults`."""
        tries = min(_MOST_DAMAGED, len(self))
        for k in range(tries):
            try:
                return self._load(MixSource((source.image + k) % len(self)) if k else source)
            except DamagedImageError as error:  # noqa: PERF203 - rare
                faults.append(str(error))
        raise DataError(f"{tries} images in a row cannot be decoded; {faults[-1]}")

    def _base_image(self, source: MixSource) -> np.ndarray:
        """(H, W, 3) uint8 RGB; read-only if it is shared through the cache."""
        if self._cache is not None and (kept := self._cache.get(*source)) is not None:
            return kept
        height, width = self.index.sizes[source.image].tolist()
        size = self._augment.base_size(self.size_rule.network_size(height, width))
        image = _resized(self.index.pixels(source.image), *size)
        if self._cache is not None:
            self._cache.put(source.image, image, source.position)
        return image


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """As resize_image, in a third of the time if only the height changes (640 x 480 px to 640 x 640)."""
    if image.shape[1] != width or image.shape[0] == height:
        return resize_image(image, height, width)
    return resize_height(image, height)


def make_loader(
    dataset: DetectionDataset,
    batches: TrainBatchSampler | EvalBatchSampler,
    workers: int,
    device: torch.device,
    *,
    reported_faults: set[str] | None = None,
) -> Loader:
    """A loader whose workers, at most one per core, live as long as it does; `reported_faults`: see Loader."""
    largest = (min(batches.batch_size, len(dataset)), *dataset.base_sizes().max(0).tolist())
    return Loader(
        dataset, batches, largest=largest, workers=min(workers, cores()), device=device, reported_faults=reported_faults
    )


if __name__ == "__main__":
    from utils.data_tools.commands import check_command, convert_command

    run_main({"check": check_command, "convert": convert_command}[COMMAND], OPTIONS)
