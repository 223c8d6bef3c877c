"""Augmentations of training images. Every random choice comes from the generator that is passed in.

A read-only image is shared with other samples or processes. Any other belongs to the sample, and a flip or a user's
transforms (utils/augment/config.py) may change it in place.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from utils.augment.albumentations_pipeline import AlbumentationsPipeline, photometric_transforms
from utils.augment.kernels import flip_horizontal, resize_into, transform_boxes
from utils.augment.policy import AugmentationPolicy
from utils.labels.boxes import MIN_SIDE

_CENTER = (0.3, 0.7)  # range of the point where the tiles of a mosaic meet, as a fraction of each side
_CROP = (0.5, 1.0)  # range of the sides of a crop, as a fraction of the image's
_MIXUP_ALPHA = 32.0  # both parameters of the beta distribution, mostly within 0.5 +- 0.1, as in YOLOv5
_MAX_PASTED = 5  # objects
_MAX_HIDDEN = 0.05  # share of a box's area that a pasted object may cover
_TRIES = 10  # random positions of a crop or a pasted object, before it is skipped
_Key = TypeVar("_Key")


class LabeledImage(NamedTuple):
    """An image (H, W, 3) uint8 RGB with boxes (N, 4) float32 x1 y1 x2 y2 in its pixels and integer labels (N,)."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


class Augmenter:
    """Applies a policy to samples; an Albumentations pipeline is built on first use, once per worker."""

    def __init__(self, policy: AugmentationPolicy) -> None:
        self.policy = policy
        built_in = AlbumentationsPipeline(photometric_transforms, "--use-train-aug") if policy.photometric else None
        self._pipeline = policy.config.pipeline() if policy.config else built_in

    def base_size(self, network_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which images are loaded before augmentation, for this network size."""
        return scaled(network_size, self.policy.scales[1])

    def __call__(
        self,
        load: Callable[[_Key], LabeledImage],
        keys: Sequence[_Key],
        network_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> LabeledImage:
        """Make a training sample.

        Args:
            load: returns the image of a key at its base size; read-only, or owned by the sample.
            keys: key of the image, followed by `policy.num_mixed` keys of images that may be mixed in.
            network_size: height and width; the sample is larger by a random factor within `policy.scales`.
        """
        policy = self.policy
        # Always drawn, the ones below only if the policy needs them: these two are the same for every policy.
        mosaic_number, flip_number = rng.random(2).tolist()
        low, high = policy.scales
        factor = rng.uniform(low, high) if low < high else high
        height, width = scaled(network_size, factor)
        zoom = factor / high  # from pixels at base size to pixels of the sample
        unused = iter(keys)
        if mosaic_number < policy.mosaic:
            picture = mosaic([load(key) for key in islice(unused, 4)], height, width, rng, zoom=zoom)
        elif _flip_coin(policy.crop, rng):
            picture = random_zoom_crop(load(next(unused)), height, width, rng)
        else:
            picture = resize(load(next(unused)), height, width)
        if _flip_coin(policy.mixup, rng):
            picture = mixup(picture, load(next(unused)), rng)
        if _flip_coin(policy.copy_paste, rng):
            picture = copy_paste(picture, load(next(unused)), rng, zoom=zoom)
        if flip_number < policy.flip:
            picture = flip_left_right(picture)
        if self._pipeline:
            image, boxes, kept = self._pipeline(picture.image, picture.boxes, rng)
            picture = LabeledImage(image, boxes, picture.labels[kept])
        return picture


def _flip_coin(probability: float, rng: np.random.Generator) -> bool:
    """True with this probability; draws no number if it is 0."""
    return probability > 0 and rng.random() < probability


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width times a factor, at least 1 px each."""
    height, width = size
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image linearly; returns the image itself if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    row = image[0].size
    if image.shape[1] == width and row % 4 == 0 and image.flags.c_contiguous:
        # Rows are independent of their columns, and OpenCV is faster with four channels than with three.
        resized = cv2.resize(image.reshape(-1, row // 4, 4), (row // 4, height), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(height, width, -1)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize(picture: LabeledImage, height: int, width: int) -> LabeledImage:
    """Resize an image and its boxes."""
    old_height, old_width = picture.image.shape[:2]
    if (old_height, old_width) == (height, width):
        return picture
    scale = np.array([width / old_width, height / old_height] * 2, np.float32)
    return picture._replace(image=resize_image(picture.image, height, width), boxes=picture.boxes * scale)


def flip_left_right(picture: LabeledImage) -> LabeledImage:
    """Flip an image and its boxes, in place if kernels.flip_horizontal can."""
    boxes = picture.boxes.copy()
    boxes[:, ::2] = np.float32(picture.image.shape[1]) - picture.boxes[:, 2::-2]
    return LabeledImage(flip_horizontal(picture.image), boxes, picture.labels)


def random_zoom_crop(picture: LabeledImage, height: int, width: int, rng: np.random.Generator) -> LabeledImage:
    """Crop a random part with the image's aspect ratio and resize it to height x width.

    Boxes with less than MIN_VISIBLE of their area in the crop are dropped. A crop that loses all boxes is tried again;
    after _TRIES the whole image is returned.
    """
    whole = picture.image.shape[:2]
    for _ in range(_TRIES):
        window = _window(whole, scaled(whole, rng.uniform(*_CROP)), *rng.random(2).tolist())
        boxes, visible = transform_boxes(picture.boxes, [window], [(0, 0, width, height)], [len(picture.boxes)])
        if visible.any() or not len(visible):
            return LabeledImage(_cut_out(picture.image, window, height, width), boxes, picture.labels[visible])
    return resize(picture, height, width)


def mosaic(
    tiles: Sequence[LabeledImage], height: int, width: int, rng: np.random.Generator, *, zoom: float = 1.0
) -> LabeledImage:
    """Combine four images in one of height x width, meeting at a random point.

    Each quarter shows a part of its image, at a random position and scale. The scale is between the smallest that fills
    the quarter, which makes objects about 0.3 to 0.7 times as large, and `zoom`. Boxes with less than MIN_VISIBLE of
    their area left are dropped.
    """
    numbers = rng.random(14).tolist()  # in one call: 14 calls would take as long as a tile
    cx, cy = (round(side * _between(_CENTER, number)) for side, number in zip((width, height), numbers, strict=False))
    canvas = np.empty((height, width, 3), np.uint8)
    quarters = ((0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height))
    used, windows, targets = [], [], []
    for k, (tile, (left, top, right, bottom)) in enumerate(zip(tiles, quarters, strict=True)):
        if left == right or top == bottom:  # the mosaic is one pixel wide or high
            continue
        whole, quarter = tile.image.shape[:2], (bottom - top, right - left)
        filling = _filling(whole, quarter)
        scale, *position = numbers[2 + 3 * k : 5 + 3 * k]
        window = _window(whole, scaled(quarter, 1 / _between((filling, max(filling, zoom)), scale)), *position)
        target = left, top, right, bottom
        resize_into(tile.image, window, canvas, target)
        used.append(tile)
        windows.append(window)
        targets.append(target)
    counts = [len(tile.boxes) for tile in used]
    boxes, visible = transform_boxes(np.concatenate([tile.boxes for tile in used]), windows, targets, counts)
    return LabeledImage(canvas, boxes, np.concatenate([tile.labels for tile in used])[visible])


def mixup(picture: LabeledImage, other: LabeledImage, rng: np.random.Generator) -> LabeledImage:
    """Blend two images at about half strength each, and keep the boxes of both.

    Of the second image a part is taken that fills the first.

    Source: mixup for detection, https://arxiv.org/abs/1902.04103.
    """
    height, width = size = picture.image.shape[:2]
    whole = other.image.shape[:2]
    window = _window(whole, scaled(size, 1 / _filling(whole, size)), *rng.random(2).tolist())
    weight = rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA)
    image = cv2.addWeighted(picture.image, weight, _cut_out(other.image, window, height, width), 1 - weight, 0)
    boxes, visible = transform_boxes(other.boxes, [window], [(0, 0, width, height)], [len(other.boxes)])
    return LabeledImage(
        image, np.concatenate([picture.boxes, boxes]), np.concatenate([picture.labels, other.labels[visible]])
    )


def copy_paste(
    picture: LabeledImage, other: LabeledImage, rng: np.random.Generator, *, zoom: float = 1.0
) -> LabeledImage:
    """Paste up to five objects of another image, scaled by `zoom`, where they cover at most 5 % of any box.

    Other objects visible in a pasted rectangle are pasted with their boxes. Source: https://arxiv.org/abs/1902.07296.
    """
    image, boxes, labels = picture.image.copy(), picture.boxes, picture.labels
    size, (other_height, other_width) = image.shape[:2], other.image.shape[:2]
    objects = np.flatnonzero((other.boxes[:, 2:] - other.boxes[:, :2] >= MIN_SIDE).all(1))
    for k in rng.permutation(objects)[:_MAX_PASTED]:
        left, top = np.floor(other.boxes[k, :2]).astype(int).tolist()
        right, bottom = np.ceil(other.boxes[k, 2:]).astype(int).clip(0, (other_width, other_height)).tolist()
        window = left, top, right, bottom
        height, width = scaled((bottom - top, right - left), zoom)
        if height > size[0] or width > size[1]:
            continue
        corners = rng.integers((size[1] - width + 1, size[0] - height + 1), size=(_TRIES, 2))
        targets = np.concatenate([corners, corners + np.array([width, height])], 1).astype(np.float32)
        free = np.flatnonzero((_hidden(boxes, targets) <= _MAX_HIDDEN).all(1))
        if not len(free):
            continue
        x, y = corners[free[0]].tolist()
        target = x, y, x + width, y + height
        pasted, visible = transform_boxes(other.boxes, [window], [target], [len(other.boxes)])
        if not visible[k]:  # too small after scaling
            continue
        resize_into(other.image, window, image, target)
        boxes, labels = np.concatenate([boxes, pasted]), np.concatenate([labels, other.labels[visible]])
    return LabeledImage(image, boxes, labels)


def _filling(whole: tuple[int, int], size: tuple[int, int]) -> float:
    """The smallest scale at which an image of size `whole` fills `size`; both are height and width."""
    return max(size[0] / whole[0], size[1] / whole[1])


def _between(limits: tuple[float, float], number: float) -> float:
    """Interpolate between the limits: the lower one for 0, the upper one for 1."""
    return limits[0] + (limits[1] - limits[0]) * number


def _window(whole: tuple[int, int], size: tuple[int, int], x: float, y: float) -> tuple[int, int, int, int]:
    """Place a window of `size`, cut to `whole`, in an image of that height and width.

    Args:
        x, y: position, random numbers from 0 to below 1.

    Returns:
        left, top, right, bottom in pixels.
    """
    height, width = min(size[0], whole[0]), min(size[1], whole[1])
    left, top = int(x * (whole[1] - width + 1)), int(y * (whole[0] - height + 1))
    return left, top, left + width, top + height


def _cut_out(image: np.ndarray, window: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """The window of an image, resized to height x width."""
    left, top, right, bottom = window
    return resize_image(image[top:bottom, left:right], height, width)


def _hidden(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(T, N) the share of each box's area that each target covers."""
    inner = np.minimum(boxes[:, 2:], targets[:, None, 2:]) - np.maximum(boxes[:, :2], targets[:, None, :2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inner.clip(0).prod(2) / np.maximum(areas, np.finfo(np.float32).tiny)
