"""Apply Albumentations transforms to images and boxes; the built-in photometric transforms."""

import functools
import inspect
import os
import random
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from utils.errors import DataError
from utils.labels.boxes import MIN_SIDE, MIN_VISIBLE

REFUSED = {  # transform -> why a file may not name it
    "Lambda": "it needs Python code",
    "Compose": "the file itself is one: use Sequential",
    "ReplayCompose": "the file itself is a Compose: use Sequential",
    "OneOrOther": "use OneOf",
    "SelectiveChannelTransform": "its transforms do not move boxes",
    "ToTensor3D": "it is for volumes",
}
_MAX_MESSAGE = 300  # characters of a message of Albumentations
_BASES = ("BasicTransform", "BaseCompose", "DualTransform", "ImageOnlyTransform")


class AlbumentationsPipeline:
    """Applies Albumentations transforms to uint8 RGB and boxes; built on first use, once per worker."""

    def __init__(self, build: Callable[[], list[Any]], source: str) -> None:
        """Take a function that makes the transforms, as importing albumentations takes seconds.

        Args:
            build: makes the transforms.
            source: the file or flag that they come from, for messages.
        """
        self.build = build
        self.source = source
        self._compose: Any = None
        self._moves_boxes = False

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform an image and its boxes.

        An image that is not read-only may be changed in place. Boxes of which less than MIN_VISIBLE of the area remains
        are dropped.

        Returns:
            (H, W, 3) uint8 RGB, (M, 4) float32 boxes, and (M,) int64, their rows in `boxes`.

        Raises:
            DataError: a transform fails on this image, or its result is not uint8 RGB.
        """
        if self._compose is None:
            self._compose, self._moves_boxes = _compose(self.build())
        # Not set_random_seed: it gives every transform the same numbers, so all would apply together.
        number = int(rng.integers(1 << 62))
        self._compose.set_random_state(rng, random.Random(number))
        cv2.setRNGSeed(number % (1 << 31))  # some transforms use OpenCV's numbers
        data = {"image": image if image.flags.writeable else image.copy()}  # some transforms work in place
        if self._moves_boxes:
            # Not label_fields: their behavior depends on whether the first image had boxes.
            data["bboxes"] = np.column_stack([boxes, np.arange(len(boxes), dtype=np.float32)])
        try:
            result = self._compose(**data)
        except transform_errors() as error:
            height, width = image.shape[:2]
            size = f"{width} x {height} px"
            raise DataError(f"{self.source} fails on an image of {size}: {error_summary(error)}") from None
        transformed = result["image"]
        if not isinstance(transformed, np.ndarray) or transformed.dtype != np.uint8 or transformed.shape[2:] != (3,):
            raise DataError(
                f"{self.source} turns an image into {_describe(transformed)}, expected uint8 RGB: "
                "leave it out, the detector normalizes images itself"
            )
        if not self._moves_boxes:
            return transformed.reshape(image.shape), boxes, np.arange(len(boxes))  # ToGray makes one row one column
        moved = np.asarray(result["bboxes"], np.float32).reshape(-1, 5 if len(result["bboxes"]) else 4)
        height, width = transformed.shape[:2]
        inside = moved[:, :4].clip(0, np.array([width, height, width, height], np.float32))
        return transformed, inside, moved[:, 4:].ravel().astype(np.int64)


def photometric_transforms() -> list[Any]:
    """Make the transforms of --use-train-aug: blur, gray, brightness and contrast, color jitter, gamma."""
    A = _albumentations()
    from utils.augment.color_jitter import ColorJitter

    return [A.OneOf([A.Blur(blur_limit=3), A.MotionBlur(blur_limit=3)], p=0.2), ColorJitter(p=1)]


def _albumentations() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for newer versions
    import albumentations

    return albumentations


def _group() -> type:
    """The base class of groups."""
    _albumentations()
    from albumentations.core.composition import BaseCompose

    return BaseCompose


@functools.cache
def transform_errors() -> tuple[type[Exception], ...]:
    """Exception types that transforms raise on arguments or images that they cannot take."""
    _albumentations()
    from albumentations.augmentations.crops.transforms import CropSizeError

    general = (ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError, TypeError, ValueError)
    return CropSizeError, cv2.error, OSError, RuntimeError, *general


@functools.cache
def transform_classes() -> dict[str, type]:
    """The transforms and groups that a file may use, by name."""
    A = _albumentations()
    return {
        name: kind
        for name, kind in vars(A).items()
        if inspect.isclass(kind)
        and issubclass(kind, (A.BasicTransform, _group()))
        and not issubclass(kind, A.Transform3D)
        and not name.startswith("_")
        and name not in REFUSED
        and name not in _BASES
    }


def strict_argument(kind: type) -> dict[str, bool]:
    """`strict`, for the transforms that have it: otherwise failed checks only warn, and defaults are used."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return {"strict": True} if "InitSchema" in vars(owner) else {}


def _compose(transforms: list[Any]) -> tuple[Any, bool]:
    """Make a Compose, and say whether it moves boxes; if not, no boxes are passed to it."""
    A = _albumentations()
    if all(isinstance(transform, A.ImageOnlyTransform) for transform in _flatten(transforms)):
        return A.Compose(transforms), False
    limits = A.BboxParams(
        format="pascal_voc",
        clip=True,
        filter_invalid_bboxes=True,
        min_visibility=MIN_VISIBLE,
        min_width=MIN_SIDE,
        min_height=MIN_SIDE,
    )
    return A.Compose(transforms, bbox_params=limits), True


def _flatten(transforms: Iterable[Any]) -> Iterator[Any]:
    """Yield every transform, those in groups too."""
    for transform in transforms:
        yield from _flatten(transform.transforms) if isinstance(transform, _group()) else (transform,)


def _describe(image: Any) -> str:
    if not isinstance(image, np.ndarray):
        return f"a {type(image).__name__}"
    return f"{image.dtype} of shape {' x '.join(map(str, image.shape))}"


def error_summary(error: BaseException) -> str:
    """The error message on one line, without the additions of pydantic and OpenCV."""
    lines = [line.partition(" [type=")[0].replace("Value error, ", "").strip() for line in str(error).splitlines()]
    if lines and "validation error" in lines[0]:
        lines = lines[1:]
    text = " ".join(line for line in lines if line and not line.startswith("For further information"))
    return text[:_MAX_MESSAGE] or type(error).__name__
