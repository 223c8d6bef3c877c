"""Batches of random images for the detectors in tests."""

from collections.abc import Sequence

import numpy as np

from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample


def batch_of(objects: Sequence[int], size: tuple[int, int] = (96, 128), *, ids: Sequence[int] | None = None) -> Batch:
    """Return one image of noise for each number of objects.

    Args:
        objects: boxes of each image, of classes 1 and 2.
        size: height and width in px.
        ids: image ids, which are also the seeds of pixels and boxes; 0, 1, ... by default.
    """
    samples = []
    for image_id, count in zip(range(len(objects)) if ids is None else ids, objects, strict=True):
        rng = np.random.default_rng(image_id)
        corners = rng.uniform(0, 0.6 * min(size), (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 30, (count, 2))], 1).astype(np.float32)
        boxes = np.minimum(boxes, np.float32([size[1], size[0]] * 2))
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        samples.append(Sample(pixels, size, image_id, boxes, rng.integers(1, 3, count)))
    return collate(samples)
