"""Pictures of what goes into a detector and what comes out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.detect.detections import Detections
from utils.images.image_files import write_image
from utils.labels.index import LabelIndex
from utils.loading.batch import Batch
from utils.visualize.drawing import draw_detections, draw_truth, grid

TRAIN_BATCH = "train_batch_0.jpg"
PREDICTIONS = "predictions.jpg"
_MOST = 16  # images in one picture


def batch_picture(batch: Batch, class_names: Sequence[str]) -> np.ndarray:
    """A batch as the network sees it, with its boxes: one uint8 RGB picture."""
    drawn, start = [], 0
    for image, (height, width), count in zip(batch.images, batch.sizes.tolist(), batch.counts.tolist(), strict=True):
        rows = slice(start, start + count)
        pixels = image[:height, :width].numpy()
        drawn.append(draw_truth(pixels, batch.boxes[rows].numpy(), batch.labels[rows].numpy(), class_names))
        start += count
    return grid(drawn[:_MOST])


def write_prediction_pictures(
    folder: Path,
    index: LabelIndex,
    detections: Mapping[int, Detections],
    *,
    threshold: float,
    single_batch: int | None = None,
) -> None:
    """Write predictions.jpg, detections over thin white boxes of the labels, for images spread over the split.

    Args:
        detections: image number in the index -> what was found there; only these images can be shown.
        threshold: score of a detection that is drawn.
        single_batch: also write each as image_{i}_{batch}.jpg, numbered in batches of so many, as the predecessor did.
    """
    images = sorted(detections)
    spread = np.unique(np.linspace(0, len(images) - 1, min(_MOST, len(images))).astype(int))
    drawn = [_prediction_picture(index, images[i], detections[images[i]].filtered(threshold)) for i in spread]
    write_image(folder / PREDICTIONS, grid(drawn))
    for number, picture in enumerate(drawn if single_batch else ()):
        write_image(folder / f"image_{number % single_batch}_{number // single_batch}.jpg", picture)


def _prediction_picture(index: LabelIndex, i: int, detections: Detections) -> np.ndarray:
    rows = index.rows(i)
    with_truth = draw_truth(index.pixels(i), index.boxes[rows], index.labels[rows])
    return draw_detections(with_truth, detections, index.classes)
