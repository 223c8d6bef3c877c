"""Numbers about the boxes of a data set, as a training gets them and as the network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.labels.index import SplitContent
from utils.labels.readers import UNKNOWN
from utils.loading.size_rule import SizeRule


@dataclass(frozen=True)
class SplitBoxes:
    """The boxes of one split that a training gets: mended, of a known class."""

    boxes: np.ndarray  # (M, 4) float32, see utils/labels/boxes.py
    labels: np.ndarray  # (M,) whole numbers
    image_of_box: np.ndarray  # (M,) ascending
    difficult: int  # of the boxes, those that are neither trained on nor counted as missed
    sizes: np.ndarray  # (N, 2) height and width of the images
    network_sizes: np.ndarray  # (N, 2) as the network sees them

    def sides(self) -> np.ndarray:
        """(M, 2) float64 width and height in network pixels."""
        scale = (self.network_sizes / self.sizes)[:, ::-1]
        return (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.float64) * scale[self.image_of_box]

    def centers(self) -> np.ndarray:
        """(M, 2) float64 x and y, from 0 to 1 over the image."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / self.sizes[self.image_of_box][:, ::-1]

    def per_image(self) -> np.ndarray:
        """(N,) boxes of every image."""
        return np.bincount(self.image_of_box, minlength=len(self.sizes))

    def images_of_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Every image and class that go together, once: (P,) images and (P,) classes."""
        most = int(self.labels.max(initial=0)) + 1
        return np.divmod(np.unique(self.image_of_box.astype(np.int64) * most + self.labels), most)

    def rows(self, image: int) -> slice:
        """Where the boxes of an image lie."""
        return slice(*np.searchsorted(self.image_of_box, (image, image + 1)).tolist())


def training_boxes(reading: SplitContent, rule: SizeRule) -> SplitBoxes:
    """What a training with this size rule would get of a split."""
    mended, keep, _ = reading.repaired_boxes()
    keep = keep & (reading.labels != UNKNOWN)
    unique, which = np.unique(reading.sizes, axis=0, return_inverse=True)
    seen = np.array([rule.network_size(*size) for size in unique.tolist()], np.int64).reshape(-1, 2)
    return SplitBoxes(
        boxes=mended[keep],
        labels=reading.labels[keep],
        image_of_box=reading.image_of_box[keep],
        difficult=int(reading.ignored[keep].sum()),
        sizes=reading.sizes,
        network_sizes=seen[which.reshape(-1)],
    )


def typical_images(split: SplitBoxes, most: int) -> list[int]:
    """Up to `most` images, ascending, that show as many classes as so few can; the rest is spread over the split."""
    images, classes = split.images_of_classes()
    chosen: list[int] = []
    while len(chosen) < most and len(classes):
        best = int(np.bincount(images).argmax())  # the first of those with most classes that are not shown yet
        chosen.append(best)
        left = ~np.isin(classes, classes[images == best])
        images, classes = images[left], classes[left]
    others = np.setdiff1d(np.arange(len(split.sizes)), chosen)
    spread = np.linspace(0, len(others) - 1, min(most - len(chosen), len(others))).astype(int)
    return sorted({*chosen, *others[spread].tolist()})


def quantiles_of_classes(values: np.ndarray, labels: np.ndarray, classes: int, shares: Sequence[float]) -> np.ndarray:
    """(classes, len(shares)) of the values of every class; NaN for a class without any."""
    ordered = values[np.lexsort((values, labels))]
    first = np.searchsorted(np.sort(labels), np.arange(classes + 1))
    count = np.diff(first)[:, None]
    at = first[:-1, None] + np.rint((count - 1) * np.asarray(shares)).astype(int)
    padded = np.append(ordered, np.nan)
    return np.where(count > 0, padded[np.clip(at, 0, len(ordered))], np.nan)
