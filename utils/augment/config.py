"""Albumentations pipelines: the built-in photometric one, and any that a YAML file lists (--aug-config)."""

import functools
import inspect
import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.augment.policy import MIN_SIDE, MIN_VISIBLE
from utils.errors import DataError
from utils.safe_yaml import brief, parse_yaml, read_yaml
from utils.text import did_you_mean

_EXAMPLE = "- HorizontalFlip: {p: 0.5}"
_GROUPS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")  # hold transforms in `transforms`
_REFUSED = {  # name -> why
    "Lambda": "it needs Python code",
    "Compose": "the file itself is one: use Sequential",
    "ReplayCompose": "the file itself is a Compose: use Sequential",
    "OneOrOther": "use OneOf",
    "SelectiveChannelTransform": "its transforms do not move boxes",
    "ToTensor3D": "it is for volumes",
}
_WORDS = 300  # characters of a message of Albumentations
_BASES = ("BasicTransform", "BaseCompose", "DualTransform", "ImageOnlyTransform")


class Pipeline:
    """Albumentations transforms at work on uint8 RGB and boxes; built on first use, once per worker."""

    def __init__(self, build: Callable[[], list[Any]], where: str) -> None:
        """`build` gives the transforms, for importing albumentations takes seconds; `where` is for messages."""
        self.build = build
        self.where = where
        self._compose: Any = None
        self._moves_boxes = False

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The image changed, its boxes, and which of `boxes` those are.

        An image that is not read-only may be changed in place. Boxes that transforms cut to less than a quarter of
        their area are left out.

        Raises:
            DataError: a transform fails on this image, or makes something else than uint8 RGB of it.
        """
        if self._compose is None:
            self._compose, self._moves_boxes = _compose(self.build())
        # Not set_random_seed: it gives every transform the same numbers, so that all would apply together.
        number = int(rng.integers(1 << 62))
        self._compose.set_random_state(rng, random.Random(number))
        cv2.setRNGSeed(number % (1 << 31))  # some transforms use OpenCV's numbers
        data = {"image": image if image.flags.writeable else image.copy()}  # some transforms work in place
        if self._moves_boxes:
            # Not label_fields: what they do depends on whether the first image ever seen had boxes.
            data["bboxes"] = np.column_stack([boxes, np.arange(len(boxes), dtype=np.float32)])
        try:
            done = self._compose(**data)
        except _faults() as error:
            height, width = image.shape[:2]
            raise DataError(f"{self.where} fails on an image of {width} x {height} px: {_words(error)}") from None
        made = done["image"]
        if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.shape[2:] != (3,):
            raise DataError(
                f"{self.where} makes {_kind(made)} of an image, expected uint8 RGB: leave it out, "
                "for the detector normalizes by itself"
            )
        if not self._moves_boxes:
            return made.reshape(image.shape), boxes, np.arange(len(boxes))  # ToGray makes one row one column
        moved = np.asarray(done["bboxes"], np.float32).reshape(-1, 5 if len(done["bboxes"]) else 4)
        height, width = made.shape[:2]
        inside = moved[:, :4].clip(0, np.array([width, height, width, height], np.float32))
        return made, inside, moved[:, 4:].ravel().astype(np.int64)


def photometric() -> list[Any]:
    """Blur, gray, brightness and contrast, color jitter and gamma; boxes stay as they are."""
    A = _albumentations()
    from utils.augment.color_jitter import ColorJitter

    return [A.OneOf([A.Blur(blur_limit=3), A.MotionBlur(blur_limit=3)], p=0.2), ColorJitter(p=1)]


class Step(NamedTuple):
    """One entry of the file: a transform, or a group of them."""

    name: str
    arguments: Mapping[str, Any]
    line: int
    steps: tuple["Step", ...] = ()  # of a group


@dataclass(frozen=True)
class AugmentationConfig:
    """A user's pipeline: a YAML list of Albumentations transforms. Checkpoints carry its text."""

    path: Path
    text: str
    steps: tuple[Step, ...]

    def build(self) -> list[Any]:
        """The transforms; DataError where Albumentations refuses a name, an argument or a value."""
        return [self._transform(step) for step in self.steps]

    def pipeline(self) -> Pipeline:
        """The transforms at work."""
        return Pipeline(self.build, str(self.path))

    def check(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Try every transform alone, and then all of them, on images of these heights and widths.

        Raises:
            DataError: a transform cannot work, or makes something else than uint8 RGB.
        """
        self.build()
        rng = np.random.default_rng(0)
        alone = [Step(step.name, {**step.arguments, "p": 1.0}, step.line) for step in _leaves(self.steps)]
        pipelines = [Pipeline(lambda s=s: [self._transform(s)], f"{self.path}:{s.line}: {s.name}") for s in alone]
        for height, width in sizes:
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            image.flags.writeable = False
            boxes = np.array([[0, 0, width, height]], np.float32)
            for pipeline in (*pipelines, self.pipeline()):
                pipeline(image, boxes[:0], rng)
                pipeline(image, boxes, rng)

    def __str__(self) -> str:
        return f"{self.path}: {'; '.join(_words_of(step) for step in self.steps)}"

    def _transform(self, step: Step) -> Any:
        where = f"{self.path}:{step.line}"
        kinds = _kinds()
        if step.name not in kinds:
            reason = _REFUSED.get(step.name)
            problem = f"{step.name} cannot be used: {reason}" if reason else f"unknown transform {brief(step.name)}"
            raise DataError(f"{where}: {problem}{'' if reason else _nearest(step.name, kinds)}")
        known = [name for name in inspect.signature(kinds[step.name]).parameters if name != "strict"]
        for key in step.arguments:
            if key not in known:
                raise DataError(f"{where}: {step.name} has no {brief(key)}{_nearest(key, known)}")
        more = {"transforms": [self._transform(s) for s in step.steps]} if step.steps else _strict(kinds[step.name])
        try:
            return kinds[step.name](**step.arguments, **more)
        except _faults() as error:
            raise DataError(f"{where}: {step.name}: {_words(error)}") from None


def load_augmentation_config(path: str | Path) -> AugmentationConfig:
    """Read a YAML list of Albumentations transforms, see parse_augmentation_config."""
    path = Path(path)
    return parse_augmentation_config(read_yaml(path, "a list of transforms"), path)


def parse_augmentation_config(text: str, path: Path) -> AugmentationConfig:
    """The pipeline that the text lists; `path` serves the messages.

    Raises:
        DataError: it is no list of `- Name: {key: value}`, with file and line.
    """
    document = parse_yaml(text, path)
    if not isinstance(document.content, list) or not document.content:
        raise DataError(f"{path}: expected a list of Albumentations transforms such as {_EXAMPLE}")
    return AugmentationConfig(path, text, _steps(document.content, document.root, path))


def _steps(content: Any, node: Any, path: Path) -> tuple[Step, ...]:
    where = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list of transforms such as {_EXAMPLE}, got {brief(content)}")
    return tuple(_step(entry, inner, path) for entry, inner in zip(content, node.value, strict=True))


def _step(entry: Any, node: Any, path: Path) -> Step:
    line = node.start_mark.line + 1
    if isinstance(entry, str):  # `- HorizontalFlip`
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise DataError(f"{path}:{line}: expected one transform such as {_EXAMPLE}, got {brief(entry)}")
    ((name, arguments),) = entry.items()
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not isinstance(arguments, dict) or not all(isinstance(k, str) for k in arguments):
        raise DataError(f"{path}:{line}: expected keys and values, as in {_EXAMPLE}, got {brief(arguments)}")
    pairs = node.value[0][1].value if arguments else []
    if len(pairs) != len(arguments):
        raise DataError(f"{path}:{line}: {name} has a key twice: drop one")
    if name not in _GROUPS:
        return Step(name, arguments, line)
    _check_group(f"{path}:{line}: {name}", arguments)
    inner = next(value for key, value in pairs if key.value == "transforms")
    steps = _steps(arguments["transforms"], inner, path)
    return Step(name, {key: value for key, value in arguments.items() if key != "transforms"}, line, steps)


def _check_group(where: str, arguments: Mapping[str, Any]) -> None:
    """Albumentations checks the arguments of transforms, but not those of groups."""
    if not arguments.get("transforms"):
        raise DataError(f"{where} needs transforms: a list such as {_EXAMPLE}")
    p, n = arguments.get("p", 1), arguments.get("n", 1)
    if type(p) not in (int, float) or not 0 <= p <= 1:
        raise DataError(f"{where}: p is {brief(p)}, expected a number from 0 to 1")
    if type(n) is not int or n < 1:
        raise DataError(f"{where}: n is {brief(n)}, expected a whole number above 0")


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
def _faults() -> tuple[type[Exception], ...]:
    """What transforms raise."""
    _albumentations()
    from albumentations.augmentations.crops.transforms import CropSizeError

    general = (ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError, TypeError, ValueError)
    return CropSizeError, cv2.error, OSError, RuntimeError, *general


@functools.cache
def _kinds() -> dict[str, type]:
    """The transforms that a file may name."""
    A = _albumentations()
    return {
        name: kind
        for name, kind in vars(A).items()
        if inspect.isclass(kind)
        and issubclass(kind, (A.BasicTransform, _group()))
        and not issubclass(kind, A.Transform3D)
        and not name.startswith("_")
        and name not in _REFUSED
        and name not in _BASES
    }


def _strict(kind: type) -> dict[str, bool]:
    """The argument without which Albumentations only warns, and takes defaults, where some of its checks fail."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return {"strict": True} if "InitSchema" in vars(owner) else {}


def _compose(transforms: list[Any]) -> tuple[Any, bool]:
    """A Compose, and whether it moves boxes; where not, boxes do not even go through it."""
    A = _albumentations()
    if all(isinstance(transform, A.ImageOnlyTransform) for transform in _flat(transforms)):
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


def _flat(transforms: Iterable[Any]) -> Iterator[Any]:
    """Every transform, groups opened."""
    for transform in transforms:
        yield from _flat(transform.transforms) if isinstance(transform, _group()) else (transform,)


def _leaves(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield from _leaves(step.steps) if step.steps else (step,)


def _words_of(step: Step) -> str:
    probability = f" {step.arguments['p']}" if "p" in step.arguments else ""
    inner = f" ({', '.join(map(_words_of, step.steps))})" if step.steps else ""
    return f"{step.name}{probability}{inner}"


def _nearest(name: str, known: Collection[str]) -> str:
    all_known = f"it has {', '.join(known)}" if len(known) < 20 else "https://albumentations.ai/docs lists them"
    return did_you_mean(name, known) or f"; {all_known}"


def _kind(made: Any) -> str:
    if not isinstance(made, np.ndarray):
        return f"a {type(made).__name__}"
    return f"{made.dtype} of shape {' x '.join(map(str, made.shape))}"


def _words(error: BaseException) -> str:
    """The message on one line, without what pydantic and OpenCV add to it."""
    lines = [line.partition(" [type=")[0].replace("Value error, ", "").strip() for line in str(error).splitlines()]
    if lines and "validation error" in lines[0]:
        lines = lines[1:]
    words = " ".join(line for line in lines if line and not line.startswith("For further information"))
    return words[:_WORDS] or type(error).__name__
