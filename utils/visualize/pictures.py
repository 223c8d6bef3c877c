"""Pictures of training batches and of predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.detect.detections import Detections
from utils.images.image_files import write_image
from utils.labels.index import LabelIndex
from utils.loading.batch import Batch
from utils.visualize.drawing import draw_detections, draw_ground_truth, grid

TRAIN_BATCH = "train_batch_0.jpg"
PREDICTIONS = "predictions.jpg"
_MAX_IMAGES = 16  # in one picture


def batch_picture(batch: Batch, class_names: Sequence[str]) -> np.ndarray:
    """Draw a batch at network size with its boxes: one (H, W, 3) uint8 RGB picture."""
    drawn, start = [], 0
    for image, (height, width), count in zip(batch.images, batch.sizes.tolist(), batch.counts.tolist(), strict=True):
        rows = slice(start, start + count)
        pixels = image[:height, :width].numpy()
        drawn.append(draw_ground_truth(pixels, batch.boxes[rows].numpy(), batch.labels[rows].numpy(), class_names))
        start += count
    return grid(drawn[:_MAX_IMAGES])


def write_prediction_pictures(
    folder: Path,
    index: LabelIndex,
    detections: Mapping[int, Detections],
    *,
    threshold: float,
    single_batch: int | None = None,
) -> None:
    """Write predictions.jpg: detections and thin white ground-truth boxes, for images spread over the split.

    Args:
        detections: image number in the index -> detections; only these images are drawn.
        threshold: minimum score of a drawn detection.
        single_batch: batch size; if given, also write each image as image_{position in batch}_{batch}.jpg.
    """
    images = sorted(detections)
    spread = np.unique(np.linspace(0, len(images) - 1, min(_MAX_IMAGES, len(images))).astype(int))
    drawn = [_prediction_picture(index, images[i], detections[images[i]].filtered(threshold)) for i in spread]
    write_image(folder / PREDICTIONS, grid(drawn))
    for number, picture in enumerate(drawn if single_batch else ()):
        write_image(folder / f"image_{number % single_batch}_{number // single_batch}.jpg", picture)


def _prediction_picture(index: LabelIndex, i: int, detections: Detections) -> np.ndarray:
    rows = index.rows(i)
    labeled = draw_ground_truth(index.pixels(i), index.boxes[rows], index.labels[rows])
    return draw_detections(labeled, detections, index.classes)
