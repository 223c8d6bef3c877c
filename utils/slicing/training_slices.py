"""Slices of training images as images of their own, beside the whole ones, as SAHI's authors train.

Akyon et al. 2022, "Slicing Aided Hyper Inference and Fine-tuning", https://arxiv.org/abs/2202.06934. A slice is cut out
of the image file's own pixels, never of a resized picture; from there on it is an image like any other.
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
    """Images and slices of them. What their files are called, `path` says for each; several have the same."""

    whole: LabelIndex  # of the images that the slices are of
    images: np.ndarray  # (N,) int64, number among them, ascending; of each image itself first, and then of its slices
    windows: np.ndarray  # (N, 4) int32, left, top, right and bottom in that image
    summary: str  # what was taken and what was left out

    def pixels(self, i: int) -> np.ndarray:
        """See LabelIndex; the whole file is decoded for a slice."""
        left, top, right, bottom = self.windows[i].tolist()
        return np.ascontiguousarray(self.whole.pixels(int(self.images[i]))[top:bottom, left:right])

    def log_summary(self, purpose: str) -> None:
        """See LabelIndex."""
        super().log_summary(purpose)
        log.info("  %s", self.summary)


def slice_index(index: LabelIndex, slices: Slices, *, empty: float = 0.1, seed: int = 0) -> SliceIndex:
    """Every image, and the slices of those that are larger than one.

    A slice has the boxes of which it shows at least a quarter of the area, cut at its border and at least 2 px wide and
    high, as after any other cut (`through` of utils/augment/kernels.py). Without one to train on it is left out, for it
    may show a part of an object; but of the slices that no box touches, chance draws some.

    Args:
        empty: slices without objects, at most this share of those with; 0 to leave them out.
        seed: of chance.
    """
    kinds, images, windows, counts, boxes, rows = ([] for _ in range(6))
    left_out = 0
    for i, (height, width) in enumerate(index.sizes.tolist()):
        own = np.arange(len(index.boxes))[index.rows(i)]
        grid = slices.windows(height, width)
        cuts = _cut(index.boxes[own], grid if len(grid) > 1 else grid[:0])
        to_train_on = ~index.ignored[own[cuts.box]]
        useful = np.bincount(cuts.window[to_train_on], minlength=len(cuts.touched)) > 0
        taken = np.flatnonzero(useful | ~cuts.touched)
        left_out += len(useful) - len(taken)
        with_them = useful[cuts.window]
        kinds += [np.array([_WHOLE]), np.where(useful[taken], _OBJECTS, _EMPTY)]
        images.append(np.full(1 + len(taken), i))
        windows += [np.array([[0, 0, width, height]]), grid[taken]]
        counts += [np.array([len(own)]), np.bincount(cuts.window, minlength=len(useful))[taken]]
        boxes += [index.boxes[own], cuts.boxes[with_them]]
        rows += [own, own[cuts.box[with_them]]]
    kind, image, window, count, row = map(np.concatenate, (kinds, images, windows, counts, rows))
    drawn, summary = _drawn(kind, empty, seed, left_out)
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


class _Cut(NamedTuple):
    """What is seen of the boxes of an image in K windows."""

    window: np.ndarray  # (M,) ascending
    box: np.ndarray  # (M,)
    boxes: np.ndarray  # (M, 4) float32, in the pixels of the window
    touched: np.ndarray  # (K,) bool: there is a box, or a part of one, however small


def _cut(boxes: np.ndarray, grid: np.ndarray) -> _Cut:
    sides = np.minimum(boxes[:, 2:], grid[:, None, 2:]) - np.maximum(boxes[:, :2], grid[:, None, :2])
    touching = (sides > 0).all(2)
    window, box = np.nonzero(touching)
    cut, visible = transform_boxes(boxes[box], grid, grid - grid[:, [0, 1, 0, 1]], touching.sum(1))
    return _Cut(window[visible], box[visible], cut, touching.any(1))


def _drawn(kind: np.ndarray, empty: float, seed: int, left_out: int) -> tuple[np.ndarray, str]:
    """Which samples there will be, a mask, and how many of each kind, in words."""
    objects, candidates = int((kind == _OBJECTS).sum()), np.flatnonzero(kind == _EMPTY)
    chosen = np.random.default_rng([seed, len(kind)]).permutation(candidates)[: int(empty * objects)]
    drawn = kind != _EMPTY
    drawn[chosen] = True
    words = (
        f"{(kind == _WHOLE).sum():,} whole images, {objects:,} slices with objects, {len(chosen):,} of "
        f"{len(candidates):,} without; {left_out:,} that show only small parts of objects are left out"
    )
    return drawn, words


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
