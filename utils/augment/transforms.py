"""Changes to training images. Every random choice comes from the generator that is passed in.

An image that is read-only is shared with other samples, or with other processes. Any other is the sample's own, and a
flip or a user's transforms (utils/augment/config.py) may change it in place.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from utils.augment.config import Pipeline, photometric
from utils.augment.policy import MIN_SIDE, AugmentationPolicy

_CENTER = (0.3, 0.7)  # where the four tiles of a mosaic meet, as a fraction of each side
_CROP = (0.5, 1.0)  # sides of a crop, as a fraction of the picture's
_MIXED = 32.0  # of mixup: a beta distribution within 0.5 +- 0.1 mostly, as in YOLOv5 and its kin
_PASTED = 5  # objects at most
_HIDDEN = 0.05  # of a box's area that a pasted object may hide
_TRIES = 10  # of places for a crop or a pasted object, before it is left out
_Key = TypeVar("_Key")


class LabeledImage(NamedTuple):
    """An image (H, W, 3) uint8 RGB with boxes (N, 4) float32 x1 y1 x2 y2 in its pixels and integer labels (N,)."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


class Augmenter:
    """A policy at work; an Albumentations pipeline is built on first use, once per worker."""

    def __init__(self, policy: AugmentationPolicy) -> None:
        self.policy = policy
        built_in = Pipeline(photometric, "--use-train-aug") if policy.photometric else None
        self._pipeline = policy.config.pipeline() if policy.config else built_in

    def base_size(self, network_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the picture that the changes start from, if the network is to see that size."""
        return scaled(network_size, self.policy.scales[1])

    def __call__(
        self,
        load: Callable[[_Key], LabeledImage],
        keys: Sequence[_Key],
        network_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> LabeledImage:
        """A picture as a training sample.

        Args:
            load: gives a picture at its base size; its image is read-only, or nobody else's.
            keys: of the picture, and of the `policy.num_mixed` that may be mixed in.
            network_size: of the picture; the sample is a factor within `policy.scales` times as large.
        """
        policy = self.policy
        # Drawn in any case, and those below only where a policy has them: another policy leaves these two as they are.
        mosaic_number, flip_number = rng.random(2).tolist()
        low, high = policy.scales
        factor = rng.uniform(low, high) if low < high else high
        height, width = scaled(network_size, factor)
        zoom = factor / high  # from the pixels of base pictures to those of the sample
        unused = iter(keys)
        if mosaic_number < policy.mosaic:
            picture = mosaic([load(key) for key in islice(unused, 4)], height, width, rng, zoom=zoom)
        elif _flip_coin(policy.crop, rng):
            picture = crop(load(next(unused)), height, width, rng)
        else:
            picture = resize(load(next(unused)), height, width)
        if _flip_coin(policy.mixup, rng):
            picture = mixup(picture, load(next(unused)), rng)
        if _flip_coin(policy.paste, rng):
            picture = paste(picture, load(next(unused)), rng, zoom=zoom)
        if flip_number < policy.flip:
            picture = flip_left_right(picture)
        if self._pipeline:
            image, boxes, kept = self._pipeline(picture.image, picture.boxes, rng)
            picture = LabeledImage(image, boxes, picture.labels[kept])
        return picture


def _flip_coin(probability: float, rng: np.random.Generator) -> bool:
    """Draws nothing where the answer is no in any case."""
    return probability > 0 and rng.random() < probability


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width times a factor, at least 1 px."""
    height, width = size
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image at a new size; itself, where that is its size."""
    if image.shape[:2] == (height, width):
        return image
    row = image[0].size
    if image.shape[1] == width and row % 4 == 0 and image.flags.c_contiguous:
        # No pixel needs those beside it, and OpenCV is faster with four channels than with three.
        resized = cv2.resize(image.reshape(-1, row // 4, 4), (row // 4, height), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(height, width, -1)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize(picture: LabeledImage, height: int, width: int) -> LabeledImage:
    """The image at a new size, boxes with it."""
    old_height, old_width = picture.image.shape[:2]
    if (old_height, old_width) == (height, width):
        return picture
    scale = np.array([width / old_width, height / old_height] * 2, np.float32)
    return picture._replace(image=resize_image(picture.image, height, width), boxes=picture.boxes * scale)


def flip_left_right(picture: LabeledImage) -> LabeledImage:
    """The mirror image, in the memory of the picture's own where utils/augment/kernels.py can."""
    from utils.augment.kernels import mirrored

    boxes = picture.boxes.copy()
    boxes[:, ::2] = np.float32(picture.image.shape[1]) - picture.boxes[:, 2::-2]
    return LabeledImage(mirrored(picture.image), boxes, picture.labels)


def crop(picture: LabeledImage, height: int, width: int, rng: np.random.Generator) -> LabeledImage:
    """A random part of the picture, of its aspect ratio, at height x width.

    Boxes cut to less than a quarter of their area are left out. A part without boxes of a picture that has some is not
    taken; after a few tries the whole picture is.
    """
    from utils.augment.kernels import through

    whole = picture.image.shape[:2]
    for _ in range(_TRIES):
        window = _window(whole, scaled(whole, rng.uniform(*_CROP)), *rng.random(2).tolist())
        boxes, visible = through(picture.boxes, [window], [(0, 0, width, height)], [len(picture.boxes)])
        if visible.any() or not len(visible):
            return LabeledImage(_seen(picture.image, window, height, width), boxes, picture.labels[visible])
    return resize(picture, height, width)


def mosaic(
    tiles: Sequence[LabeledImage], height: int, width: int, rng: np.random.Generator, *, zoom: float = 1.0
) -> LabeledImage:
    """Four pictures in one of height x width, meeting at a random point.

    Each fills its quarter with a part of it, cut out at a random place and magnified at random: between the largest
    part that fills the quarter, which makes objects about 0.3 to 0.7 times as large, and `zoom`. Boxes cut to less
    than a quarter of their area are left out.
    """
    from utils.augment.kernels import show, through

    numbers = rng.random(14).tolist()  # at once: a call for each would take as long as a tile
    cx, cy = (round(side * _between(_CENTER, number)) for side, number in zip((width, height), numbers, strict=False))
    canvas = np.empty((height, width, 3), np.uint8)
    quarters = ((0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height))
    used, windows, targets = [], [], []
    for k, (tile, (left, top, right, bottom)) in enumerate(zip(tiles, quarters, strict=True)):
        if left == right or top == bottom:  # the picture is one pixel wide or high
            continue
        whole, quarter = tile.image.shape[:2], (bottom - top, right - left)
        filling = _filling(whole, quarter)
        magnified, *place = numbers[2 + 3 * k : 5 + 3 * k]
        window = _window(whole, scaled(quarter, 1 / _between((filling, max(filling, zoom)), magnified)), *place)
        target = left, top, right, bottom
        show(tile.image, window, canvas, target)
        used.append(tile)
        windows.append(window)
        targets.append(target)
    counts = [len(tile.boxes) for tile in used]
    boxes, visible = through(np.concatenate([tile.boxes for tile in used]), windows, targets, counts)
    return LabeledImage(canvas, boxes, np.concatenate([tile.labels for tile in used])[visible])


def mixup(picture: LabeledImage, other: LabeledImage, rng: np.random.Generator) -> LabeledImage:
    """Both pictures at about half strength, with the boxes of both; of the other, a part that fills the first one.

    Source: mixup for detection, https://arxiv.org/abs/1902.04103.
    """
    from utils.augment.kernels import through

    height, width = size = picture.image.shape[:2]
    whole = other.image.shape[:2]
    window = _window(whole, scaled(size, 1 / _filling(whole, size)), *rng.random(2).tolist())
    weight = rng.beta(_MIXED, _MIXED)
    image = cv2.addWeighted(picture.image, weight, _seen(other.image, window, height, width), 1 - weight, 0)
    boxes, visible = through(other.boxes, [window], [(0, 0, width, height)], [len(other.boxes)])
    return LabeledImage(
        image, np.concatenate([picture.boxes, boxes]), np.concatenate([picture.labels, other.labels[visible]])
    )


def paste(picture: LabeledImage, other: LabeledImage, rng: np.random.Generator, *, zoom: float = 1.0) -> LabeledImage:
    """Up to five objects of another picture, `zoom` times as large, where they hide next to nothing of any box.

    What else is seen in a pasted rectangle comes with its box. Source: https://arxiv.org/abs/1902.07296.
    """
    from utils.augment.kernels import show, through

    image, boxes, labels = picture.image.copy(), picture.boxes, picture.labels
    size, (other_height, other_width) = image.shape[:2], other.image.shape[:2]
    objects = np.flatnonzero((other.boxes[:, 2:] - other.boxes[:, :2] >= MIN_SIDE).all(1))
    for k in rng.permutation(objects)[:_PASTED]:
        left, top = np.floor(other.boxes[k, :2]).astype(int).tolist()
        right, bottom = np.ceil(other.boxes[k, 2:]).astype(int).clip(0, (other_width, other_height)).tolist()
        window = left, top, right, bottom
        height, width = scaled((bottom - top, right - left), zoom)
        if height > size[0] or width > size[1]:
            continue
        corners = rng.integers((size[1] - width + 1, size[0] - height + 1), size=(_TRIES, 2))
        places = np.concatenate([corners, corners + np.array([width, height])], 1).astype(np.float32)
        free = np.flatnonzero((_hidden(boxes, places) <= _HIDDEN).all(1))
        if not len(free):
            continue
        x, y = corners[free[0]].tolist()
        target = x, y, x + width, y + height
        pasted, visible = through(other.boxes, [window], [target], [len(other.boxes)])
        if not visible[k]:  # it became too small
            continue
        show(other.image, window, image, target)
        boxes, labels = np.concatenate([boxes, pasted]), np.concatenate([labels, other.labels[visible]])
    return LabeledImage(image, boxes, labels)


def _filling(whole: tuple[int, int], size: tuple[int, int]) -> float:
    """The smallest magnification at which a part of `whole` fills `size`."""
    return max(size[0] / whole[0], size[1] / whole[1])


def _between(limits: tuple[float, float], number: float) -> float:
    """From the lower limit, where the number is 0, to the upper one, where it is 1."""
    return limits[0] + (limits[1] - limits[0]) * number


def _window(whole: tuple[int, int], size: tuple[int, int], x: float, y: float) -> tuple[int, int, int, int]:
    """A part, left top right bottom, of a picture of height and width `whole`; at most all of it.

    Args:
        x, y: random numbers from 0 to below 1, where it lies.
    """
    height, width = min(size[0], whole[0]), min(size[1], whole[1])
    left, top = int(x * (whole[1] - width + 1)), int(y * (whole[0] - height + 1))
    return left, top, left + width, top + height


def _seen(image: np.ndarray, window: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """What is in the window, at height x width: nothing but that is resized."""
    left, top, right, bottom = window
    return resize_image(image[top:bottom, left:right], height, width)


def _hidden(boxes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(P, N): how much of each box's area each place covers."""
    inner = np.minimum(boxes[:, 2:], places[:, None, 2:]) - np.maximum(boxes[:, :2], places[:, None, :2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inner.clip(0).prod(2) / np.maximum(areas, np.finfo(np.float32).tiny)
