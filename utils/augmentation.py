"""Changes to training images. Every random choice comes from the generator that is passed in."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

_MIN_VISIBLE = 0.25  # a box cut by the mosaic stays if so much of its area does
_MIN_SIDE = 2.0  # px, and both its sides are this long
_CENTRE = (0.3, 0.7)  # where the four tiles of a mosaic meet, as a fraction of each side


@dataclass(frozen=True)
class AugmentationPolicy:
    """Which changes, with which probability per training sample."""

    flip: float = 0.0
    mosaic: float = 0.0
    photometric: bool = False


class Labelled(NamedTuple):
    """An image (H, W, 3) uint8 RGB with boxes (N, 4) float32 x1 y1 x2 y2 in its pixels and labels (N,) int64."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def resize(picture: Labelled, height: int, width: int) -> Labelled:
    """The image at a new size, boxes with it."""
    old_height, old_width = picture.image.shape[:2]
    image = picture.image
    if (old_height, old_width) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    scale = np.array([width / old_width, height / old_height] * 2, np.float32)
    return picture._replace(image=image, boxes=picture.boxes * scale)


def flip_left_right(picture: Labelled) -> Labelled:
    """The mirror image."""
    width = np.float32(picture.image.shape[1])
    x1, y1, x2, y2 = picture.boxes.T
    boxes = np.stack([width - x2, y1, width - x1, y2], 1)
    return picture._replace(image=cv2.flip(picture.image, 1), boxes=boxes)


def mosaic(tiles: Sequence[Labelled], height: int, width: int, rng: np.random.Generator) -> Labelled:
    """Four pictures in one of height x width, meeting at a random point.

    Each is resized once, to cover its quarter, and cut at a random place. Boxes cut to less than a quarter of their
    area are left out.
    """
    cx, cy = (round(side * rng.uniform(*_CENTRE)) for side in (width, height))
    canvas = np.empty((height, width, 3), np.uint8)
    boxes, labels = [], []
    quarters = ((0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height))
    for tile, (left, top, right, bottom) in zip(tiles, quarters, strict=True):
        if left == right or top == bottom:  # the picture is one pixel wide or high
            continue
        tile_height, tile_width = tile.image.shape[:2]
        scale = max((right - left) / tile_width, (bottom - top) / tile_height)
        resized_width, resized_height = (
            max(right - left, round(tile_width * scale)),
            max(bottom - top, round(tile_height * scale)),
        )
        covering = resize(tile, resized_height, resized_width)
        x = int(rng.integers(resized_width - (right - left) + 1))
        y = int(rng.integers(resized_height - (bottom - top) + 1))
        canvas[top:bottom, left:right] = covering.image[y : y + bottom - top, x : x + right - left]
        shift = np.array([left - x, top - y] * 2, np.float32)
        kept, visible = _cut(covering.boxes + shift, np.array([left, top, right, bottom], np.float32))
        boxes.append(kept)
        labels.append(tile.labels[visible])
    return Labelled(canvas, np.concatenate(boxes), np.concatenate(labels))


def _cut(boxes: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes' parts inside the window that are worth keeping, and which boxes those are."""
    cut = np.concatenate([np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])], 1)
    sides = cut[:, 2:] - cut[:, :2]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    visible = (sides >= _MIN_SIDE).all(1) & (sides.clip(0).prod(1) >= _MIN_VISIBLE * areas)
    return cut[visible], visible


class Photometric:
    """Blur, grey, brightness and contrast, colour jitter and gamma, on uint8 RGB; boxes stay as they are."""

    def __init__(self) -> None:
        self._pipeline: Any = None  # built on first use, once per worker: importing albumentations takes seconds

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A changed copy of (H, W, 3) uint8 RGB."""
        if self._pipeline is None:
            self._pipeline = self._build()
        # Not set_random_seed: it gives every operation the same numbers, so that all would apply together.
        self._pipeline.set_random_state(rng, random.Random(int(rng.integers(1 << 62))))
        return self._pipeline(image=image)["image"]

    @staticmethod
    def _build() -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for newer versions
        import albumentations as A

        return A.Compose(
            [
                A.OneOf([A.Blur(blur_limit=3), A.MotionBlur(blur_limit=3)], p=0.2),
                A.ToGray(p=0.1),
                A.RandomBrightnessContrast(p=0.3),
                A.ColorJitter(p=0.3),
                A.RandomGamma(p=0.3),
            ]
        )
