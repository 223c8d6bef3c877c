"""Statistics of a data set's boxes, as training uses them and at network size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.labels.index import SplitContent
from utils.labels.readers import UNKNOWN
from utils.loading.size_rule import SizeRule


@dataclass(frozen=True)
class SplitBoxes:
    """Training boxes of one split: repaired, and of a known class."""

    boxes: np.ndarray  # (M, 4) float32, see utils/labels/boxes.py
    labels: np.ndarray  # (M,) integers, 1 .. number of classes
    image_of_box: np.ndarray  # (M,) ascending
    difficult: int  # number of ignored boxes, neither trained on nor counted as missed
    sizes: np.ndarray  # (N, 2) height and width of the images
    network_sizes: np.ndarray  # (N, 2) height and width of the network input

    def sides(self) -> np.ndarray:
        """(M, 2) float64 width and height in network pixels."""
        scale = (self.network_sizes / self.sizes)[:, ::-1]
        return (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.float64) * scale[self.image_of_box]

    def centers(self) -> np.ndarray:
        """(M, 2) float64 x and y, from 0 to 1 over the image."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / self.sizes[self.image_of_box][:, ::-1]

    def per_image(self) -> np.ndarray:
        """(N,) number of boxes of every image."""
        return np.bincount(self.image_of_box, minlength=len(self.sizes))

    def images_of_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Unique pairs of an image and a class in it: (P,) images and (P,) classes."""
        num_labels = int(self.labels.max(initial=0)) + 1
        return np.divmod(np.unique(self.image_of_box.astype(np.int64) * num_labels + self.labels), num_labels)

    def rows(self, image: int) -> slice:
        """Rows of an image's boxes."""
        return slice(*np.searchsorted(self.image_of_box, (image, image + 1)).tolist())


def training_boxes(reading: SplitContent, rule: SizeRule) -> SplitBoxes:
    """Boxes of a split that training with this size rule uses."""
    repaired, keep, _ = reading.repaired_boxes()
    keep = keep & (reading.labels != UNKNOWN)
    unique, inverse = np.unique(reading.sizes, axis=0, return_inverse=True)
    network_sizes = np.array([rule.network_size(*size) for size in unique.tolist()], np.int64).reshape(-1, 2)
    return SplitBoxes(
        boxes=repaired[keep],
        labels=reading.labels[keep],
        image_of_box=reading.image_of_box[keep],
        difficult=int(reading.ignored[keep].sum()),
        sizes=reading.sizes,
        network_sizes=network_sizes[inverse.reshape(-1)],
    )


def sample_images(split: SplitBoxes, limit: int) -> list[int]:
    """Select up to `limit` images, ascending: greedily to cover the classes, the rest spread over the split."""
    images, classes = split.images_of_classes()
    chosen: list[int] = []
    while len(chosen) < limit and len(classes):
        best = int(np.bincount(images).argmax())  # the first image with most classes that are not covered yet
        chosen.append(best)
        left = ~np.isin(classes, classes[images == best])
        images, classes = images[left], classes[left]
    others = np.setdiff1d(np.arange(len(split.sizes)), chosen)
    spread = np.linspace(0, len(others) - 1, min(limit - len(chosen), len(others))).astype(int)
    return sorted({*chosen, *others[spread].tolist()})


def class_quantiles(values: np.ndarray, labels: np.ndarray, num_labels: int, quantiles: Sequence[float]) -> np.ndarray:
    """(num_labels, len(quantiles)) quantiles of each class's values; NaN for a class without values."""
    ordered = values[np.lexsort((values, labels))]
    first = np.searchsorted(np.sort(labels), np.arange(num_labels + 1))
    count = np.diff(first)[:, None]
    at = first[:-1, None] + np.rint((count - 1) * np.asarray(quantiles)).astype(int)
    padded = np.append(ordered, np.nan)
    return np.where(count > 0, padded[np.clip(at, 0, len(ordered))], np.nan)
