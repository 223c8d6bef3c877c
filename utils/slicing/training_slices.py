"""Slicing aided fine-tuning: slices of the training images as additional samples beside the whole images.

Akyon et al. 2022, "Slicing Aided Hyper Inference and Fine-tuning", https://arxiv.org/abs/2202.06934. A slice is cropped
from the full-resolution image before any resizing, and then treated like any other image.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from utils.augment.kernels import transform_boxes
from utils.images.file_lists import FileList
from utils.labels.index import LabelIndex
from utils.slicing.grid import Slices

_WHOLE, _OBJECTS, _EMPTY = range(3)  # kinds of samples
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceIndex(LabelIndex):
    """Index of whole images and their slices. Slices of one image share its file path."""

    whole: LabelIndex  # of the original images
    images: np.ndarray  # (N,) int64, index into `whole`, ascending; the image itself, then its slices
    windows: np.ndarray  # (N, 4) int32 left, top, right and bottom in that image
    summary: str  # counts of used and skipped slices, for the log

    def pixels(self, i: int) -> np.ndarray:
        """See LabelIndex. The whole file is decoded for each slice."""
        left, top, right, bottom = self.windows[i].tolist()
        return np.ascontiguousarray(self.whole.pixels(int(self.images[i]))[top:bottom, left:right])

    def log_summary(self, purpose: str) -> None:
        """See LabelIndex."""
        super().log_summary(purpose)
        log.info("  %s", self.summary)


def slice_index(index: LabelIndex, slices: Slices, *, empty: float = 0.1, seed: int = 0) -> SliceIndex:
    """Build the index of all images plus the slices of those larger than a slice.

    A slice keeps the boxes of which at least a quarter of the area is visible, clipped to its border and at least 2 px
    wide and high, as after any other crop (`through` of utils/augment/kernels.py). Slices without a box to train on are
    skipped, since they may show part of an object. Slices that no box touches are background; some are drawn at random.

    Args:
        empty: maximum number of background slices, as a fraction of those with objects; 0 for none.
        seed: seed of the random draw.
    """
    kinds, images, windows, counts, boxes, rows = ([] for _ in range(6))
    skipped = 0
    for i, (height, width) in enumerate(index.sizes.tolist()):
        image_rows = np.arange(len(index.boxes))[index.rows(i)]
        grid = slices.windows(height, width)
        clipped = _clip(index.boxes[image_rows], grid if len(grid) > 1 else grid[:0])
        is_trained_on = ~index.ignored[image_rows[clipped.box]]
        useful = np.bincount(clipped.window[is_trained_on], minlength=len(clipped.touched)) > 0
        taken = np.flatnonzero(useful | ~clipped.touched)
        skipped += len(useful) - len(taken)
        has_objects = useful[clipped.window]
        kinds += [np.array([_WHOLE]), np.where(useful[taken], _OBJECTS, _EMPTY)]
        images.append(np.full(1 + len(taken), i))
        windows += [np.array([[0, 0, width, height]]), grid[taken]]
        counts += [np.array([len(image_rows)]), np.bincount(clipped.window, minlength=len(useful))[taken]]
        boxes += [index.boxes[image_rows], clipped.boxes[has_objects]]
        rows += [image_rows, image_rows[clipped.box[has_objects]]]
    kind, image, window, count, row = map(np.concatenate, (kinds, images, windows, counts, rows))
    drawn, summary = _draw_background(kind, empty, seed, skipped)
    image, window = image[drawn], window[drawn].astype(np.int32)
    return SliceIndex(
        files=FileList(index.folder, (index.files.names[i] for i in image.tolist())),
        sizes=(window[:, [3, 2]] - window[:, [1, 0]]),
        as_stored=index.as_stored[image],
        offsets=np.concatenate([[0], np.cumsum(count[drawn])]),
        boxes=np.concatenate(boxes),
        labels=index.labels[row],
        ignored=index.ignored[row],
        classes=index.classes,
        report=index.report,
        whole=index,
        images=image,
        windows=window,
        summary=f"Slices of {slices}: {summary}",
    )


class _ClippedBoxes(NamedTuple):
    """Boxes of an image clipped to K windows; M visible parts."""

    window: np.ndarray  # (M,) ascending
    box: np.ndarray  # (M,)
    boxes: np.ndarray  # (M, 4) float32, in the pixels of the window
    touched: np.ndarray  # (K,) bool: any part of a box is inside, however small


def _clip(boxes: np.ndarray, grid: np.ndarray) -> _ClippedBoxes:
    sides = np.minimum(boxes[:, 2:], grid[:, None, 2:]) - np.maximum(boxes[:, :2], grid[:, None, :2])
    touching = (sides > 0).all(2)
    window, box = np.nonzero(touching)
    cut, visible = transform_boxes(boxes[box], grid, grid - grid[:, [0, 1, 0, 1]], touching.sum(1))
    return _ClippedBoxes(window[visible], box[visible], cut, touching.any(1))


def _draw_background(kind: np.ndarray, empty: float, seed: int, skipped: int) -> tuple[np.ndarray, str]:
    """Choose the samples to use; return a mask, and a text with the number of each kind."""
    objects, candidates = int((kind == _OBJECTS).sum()), np.flatnonzero(kind == _EMPTY)
    chosen = np.random.default_rng([seed, len(kind)]).permutation(candidates)[: int(empty * objects)]
    drawn = kind != _EMPTY
    drawn[chosen] = True
    summary = (
        f"{(kind == _WHOLE).sum():,} whole images, {objects:,} slices with objects, {len(chosen):,} of "
        f"{len(candidates):,} without; {skipped:,} that show only small parts of objects skipped"
    )
    return drawn, summary


def with_slices(
    index: LabelIndex,
    *,
    height: int,
    width: int,
    overlap_height: float,
    overlap_width: float,
    empty: float,
    seed: int,
) -> SliceIndex:
    """Add slices of the images to those to train on, see slice_index.

    Args:
        height, width: of a slice, px.
        overlap_height, overlap_width: of neighboring slices, as a share of a slice.
        empty: slices without objects, at most this share of those with.
        seed: of the choice among them.

    Raises:
        UserError: an image has too many slices.
    """
    slices = Slices(height, width, overlap_height, overlap_width)
    return slice_index(index, slices, empty=empty, seed=seed)
