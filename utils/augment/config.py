"""A user's Albumentations pipeline: a YAML list of transforms (--aug-config), parsed and checked."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.augment.albumentations_pipeline import (
    REFUSED,
    AlbumentationsPipeline,
    error_summary,
    strict_argument,
    transform_classes,
    transform_errors,
)
from utils.errors import DataError
from utils.safe_yaml import parse_yaml, read_yaml, short_repr
from utils.text import did_you_mean

_EXAMPLE = "- HorizontalFlip: {p: 0.5}"
_GROUPS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")  # hold transforms in `transforms`


class TransformEntry(NamedTuple):
    """One entry of the file: a transform, or a group of them."""

    name: str
    arguments: Mapping[str, Any]
    line: int
    steps: tuple["TransformEntry", ...] = ()  # of a group


@dataclass(frozen=True)
class AugmentationConfig:
    """A user's pipeline: a YAML list of Albumentations transforms. Checkpoints store its text."""

    path: Path
    text: str
    steps: tuple[TransformEntry, ...]

    def build(self) -> list[Any]:
        """Make the transforms.

        Raises:
            DataError: Albumentations refuses a name, an argument or a value.
        """
        return [self._transform(step) for step in self.steps]

    def pipeline(self) -> AlbumentationsPipeline:
        """The transforms as a function of image and boxes."""
        return AlbumentationsPipeline(self.build, str(self.path))

    def check(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Try every transform alone, and then all together, on random images of these heights and widths.

        Raises:
            DataError: a transform fails, or its result is not uint8 RGB.
        """
        self.build()
        rng = np.random.default_rng(0)
        single = [TransformEntry(step.name, {**step.arguments, "p": 1.0}, step.line) for step in _leaves(self.steps)]
        pipelines = [
            AlbumentationsPipeline(lambda s=s: [self._transform(s)], f"{self.path}:{s.line}: {s.name}") for s in single
        ]
        for height, width in sizes:
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            image.flags.writeable = False
            boxes = np.array([[0, 0, width, height]], np.float32)
            for pipeline in (*pipelines, self.pipeline()):
                pipeline(image, boxes[:0], rng)
                pipeline(image, boxes, rng)

    def __str__(self) -> str:
        return f"{self.path}: {'; '.join(_summary(step) for step in self.steps)}"

    def _transform(self, step: TransformEntry) -> Any:
        where = f"{self.path}:{step.line}"
        classes = transform_classes()
        if step.name not in classes:
            reason = REFUSED.get(step.name)
            if reason:
                raise DataError(f"{where}: {step.name} cannot be used: {reason}")
            hint = _nearest(step.name, classes)
            raise DataError(f"{where}: unknown transform {short_repr(step.name)}{hint}")
        known = [name for name in inspect.signature(classes[step.name]).parameters if name != "strict"]
        for key in step.arguments:
            if key not in known:
                raise DataError(f"{where}: {step.name} has no {short_repr(key)}{_nearest(key, known)}")
        inner = {"transforms": [self._transform(s) for s in step.steps]}
        more = inner if step.steps else strict_argument(classes[step.name])
        try:
            return classes[step.name](**step.arguments, **more)
        except transform_errors() as error:
            raise DataError(f"{where}: {step.name}: {error_summary(error)}") from None


def load_augmentation_config(path: str | Path) -> AugmentationConfig:
    """Read a YAML list of Albumentations transforms, see parse_augmentation_config."""
    path = Path(path)
    return parse_augmentation_config(read_yaml(path, "a list of transforms"), path)


def parse_augmentation_config(text: str, path: Path) -> AugmentationConfig:
    """Parse a YAML list of Albumentations transforms; `path` is for messages.

    Raises:
        DataError: it is not a list of `- Name: {key: value}`; the message has file and line.
    """
    document = parse_yaml(text, path)
    if not isinstance(document.content, list) or not document.content:
        raise DataError(f"{path}: expected a list of Albumentations transforms such as {_EXAMPLE}")
    return AugmentationConfig(path, text, _steps(document.content, document.root, path))


def _steps(content: Any, node: Any, path: Path) -> tuple[TransformEntry, ...]:
    where = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list of transforms such as {_EXAMPLE}, got {short_repr(content)}")
    return tuple(_step(entry, inner, path) for entry, inner in zip(content, node.value, strict=True))


def _step(entry: Any, node: Any, path: Path) -> TransformEntry:
    line = node.start_mark.line + 1
    if isinstance(entry, str):  # `- HorizontalFlip`
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise DataError(f"{path}:{line}: expected one transform such as {_EXAMPLE}, got {short_repr(entry)}")
    ((name, arguments),) = entry.items()
    arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not isinstance(arguments, dict) or not all(isinstance(k, str) for k in arguments):
        raise DataError(f"{path}:{line}: expected keys and values, as in {_EXAMPLE}, got {short_repr(arguments)}")
    pairs = node.value[0][1].value if arguments else []
    if len(pairs) != len(arguments):
        raise DataError(f"{path}:{line}: {name} has a key twice: drop one")
    if name not in _GROUPS:
        return TransformEntry(name, arguments, line)
    _check_group(f"{path}:{line}: {name}", arguments)
    inner = next(value for key, value in pairs if key.value == "transforms")
    steps = _steps(arguments["transforms"], inner, path)
    return TransformEntry(name, {key: value for key, value in arguments.items() if key != "transforms"}, line, steps)


def _check_group(where: str, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a group, which Albumentations does not."""
    if not arguments.get("transforms"):
        raise DataError(f"{where} needs transforms: a list such as {_EXAMPLE}")
    p, n = arguments.get("p", 1), arguments.get("n", 1)
    if type(p) not in (int, float) or not 0 <= p <= 1:
        raise DataError(f"{where}: p is {short_repr(p)}, expected a number from 0 to 1")
    if type(n) is not int or n < 1:
        raise DataError(f"{where}: n is {short_repr(n)}, expected a whole number above 0")


def _leaves(steps: Iterable[TransformEntry]) -> Iterator[TransformEntry]:
    for step in steps:
        yield from _leaves(step.steps) if step.steps else (step,)


def _summary(step: TransformEntry) -> str:
    probability = f" {step.arguments['p']}" if "p" in step.arguments else ""
    inner = f" ({', '.join(map(_summary, step.steps))})" if step.steps else ""
    return f"{step.name}{probability}{inner}"


def _nearest(name: str, known: Collection[str]) -> str:
    all_known = f"it has {', '.join(known)}" if len(known) < 20 else "https://albumentations.ai/docs lists them"
    return did_you_mean(name, known) or f"; {all_known}"
