"""Images of a data set as small pictures inside an HTML page."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.data_tools.check import DataCheck, Problem
from utils.data_tools.statistics import SplitBoxes
from utils.errors import DataError
from utils.images.image_files import is_image_name, read_image
from utils.labels.index import SplitContent
from utils.labels.readers import UNKNOWN
from utils.visualize.drawing import draw_truth
from utils.visualize.html import text
from utils.visualize.pages import data_uri

_SAMPLE_SIDE, _THUMBNAIL_SIDE = 360, 260  # px, longer side
_QUALITY = 80  # of the JPEGs
_BYTES = 4_000_000  # of all pictures of a page
_MOST_OUTLINES = 300  # boxes around that which is meant
_BEYOND = 0.5  # of the image's side: so far outside it boxes are shown
_BOX = re.compile(r"box (\d+)\b")
_TWIN = re.compile(r"the same as (.+?)(?: of (train|valid|test))?", re.DOTALL)


class Target(NamedTuple):
    """An image that a problem is about."""

    split: str
    path: Path
    image: int | None  # in the split's reading; None: it is not there, for it is broken
    box: int | None = None  # from 1, in its label file
    unknown: bool = False  # it is about the boxes of classes that CLASSES lacks


class Album:
    """Turns images into data: URIs, until the page is full."""

    def __init__(self) -> None:
        self._left = _BYTES

    def sample(self, reading: SplitContent, split: SplitBoxes, image: int, classes: tuple[str, ...]) -> str | None:
        """An <img> of an image with the boxes that a training gets of it; None where there is none to be had."""
        pixels = _pixels(reading, image)
        if pixels is None:
            return None
        rows, small = split.rows(image), _reduced(pixels, _SAMPLE_SIDE)
        scale = np.array(small.shape[1::-1] * 2) / np.array(pixels.shape[1::-1] * 2)
        drawn = draw_truth(small, split.boxes[rows] * scale, split.labels[rows], classes)
        uri = self._uri(drawn)
        alt = text(f"{reading.images[image].name}, with its boxes")
        size = f'width="{small.shape[1]}" height="{small.shape[0]}"'
        return uri and f'<img loading="lazy" src="{uri}" alt="{alt}" {size}>'

    def thumbnail(self, target: Target, reading: SplitContent) -> str | None:
        """An <svg> of the image, its boxes as written over it; None where there is none to be had."""
        pixels = _decoded(target.path) if target.image is None else _pixels(reading, target.image)
        if pixels is None:
            return None
        uri = self._uri(_reduced(pixels, _THUMBNAIL_SIDE))
        if uri is None:
            return None
        height, width = pixels.shape[:2]
        boxes, meant = _boxes_of(reading, target)
        left, top, right, bottom = _field(width, height, boxes[meant])
        around = f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"'
        image = f'<image href="{uri}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        drawn = "".join(_rectangle(box, "other") for box in boxes[~meant][:_MOST_OUTLINES])
        ring = max(width, height) / 30
        marked = "".join(_rectangle(box, "meant", ring) for box in boxes[meant][:_MOST_OUTLINES])
        alt = text(target.path.name + (", with the boxes that are meant" if marked else ""))
        return f'<svg class="thumb" {around} role="img" aria-label="{alt}">{image}{drawn}{marked}</svg>'

    def _uri(self, rgb: np.ndarray) -> str | None:
        data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        self._left -= len(data) * 4 // 3
        return data_uri("jpeg", data) if self._left >= 0 else None


def find_targets(checked: DataCheck, problems: Iterable[Problem]) -> dict[Problem, list[Target]]:
    """The images that each of these problems is about: one or, of copies, two; none where no image can be named."""
    problems = list(problems)
    twins = {problem: _twin(problem) for problem in problems}
    names = {twin for twin in twins.values() if twin}
    places = {(problem.split, problem.place) for problem in problems}
    at, by_name = {}, {}
    for split, reading in checked.readings.items():
        for target, label_place in _images(split, reading, checked.splits[split].labels):
            for place in (str(target.path), label_place):
                if (split, place) in places:
                    at.setdefault((split, place), target)
            key = split, target.path.relative_to(reading.images.folder).as_posix()
            if key in names:
                by_name[key] = target
    found: dict[Problem, list[Target]] = {}
    for problem in problems:
        path = Path(problem.place)
        lone = Target(problem.split, path, None) if is_image_name(path) else None
        target = at.get((problem.split, problem.place), lone)
        box = _BOX.match(problem.what)
        if target and box:
            target = target._replace(box=int(box[1]))
        elif target and "CLASSES lacks" in problem.kind:
            target = target._replace(unknown=True)
        found[problem] = [each for each in (target, by_name.get(twins[problem])) if each]
    return found


def _twin(problem: Problem) -> tuple[str, str] | None:
    """Split and name of the image that this one is a copy of."""
    same = _TWIN.fullmatch(problem.what)
    return (same[2] or problem.split, same[1]) if same else None


def _images(split: str, reading: SplitContent, labels: str) -> Iterable[tuple[Target, str | None]]:
    """Every image of a split, and what a problem of its labels has for a place."""
    folder = Path(labels).parent if Path(labels).is_file() else Path(labels)
    for image, (path, name) in enumerate(zip(reading.images, reading.label_names, strict=True)):
        yield Target(split, path, image), f"{folder}/{name}" if name else None
    for broken in reading.unreadable:
        yield Target(split, broken.image, None), f"{folder}/{broken.label_name}" if broken.label_name else None


def _pixels(reading: SplitContent, image: int) -> np.ndarray | None:
    """In the orientation that the boxes mean."""
    pixels = _decoded(reading.images[image], as_stored=bool(reading.as_stored[image]))
    return pixels if pixels is not None and pixels.shape[:2] == tuple(reading.sizes[image]) else None


def _decoded(path: Path, *, as_stored: bool = False) -> np.ndarray | None:
    try:
        return read_image(path, as_stored=as_stored)
    except DataError:
        return None


def _reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels


def _boxes_of(reading: SplitContent, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of an image as written, and which of them the problem is about: (n, 4) and (n,) bool."""
    if target.image is None:
        return np.empty((0, 4)), np.empty(0, bool)
    first, last = np.searchsorted(reading.image_of_box, (target.image, target.image + 1))
    if target.box is not None:
        return reading.boxes[first:last], np.arange(1, last - first + 1) == target.box
    unknown = reading.labels[first:last] == UNKNOWN
    return reading.boxes[first:last], unknown & target.unknown


def _field(width: int, height: int, boxes: np.ndarray) -> tuple[float, float, float, float]:
    """What a thumbnail shows: the image, and its surroundings where these boxes are there."""
    boxes = boxes[np.isfinite(boxes).all(1)]
    x = np.clip(boxes[:, ::2], -_BEYOND * width, (1 + _BEYOND) * width)
    y = np.clip(boxes[:, 1::2], -_BEYOND * height, (1 + _BEYOND) * height)
    return x.min(initial=0), y.min(initial=0), x.max(initial=width), y.max(initial=height)


def _rectangle(box: np.ndarray, kind: str, ring: float = 0) -> str:
    """`ring`: the radius of a circle that shows where a box is that is too small to be seen."""
    if not np.isfinite(box).all() or np.abs(box).max() > 1e7:
        return ""
    (left, right), (top, bottom) = sorted(box[::2]), sorted(box[1::2])
    drawn = (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>'
    )
    if max(right - left, bottom - top) < ring:
        middle = f'cx="{(left + right) / 2:.1f}" cy="{(top + bottom) / 2:.1f}"'
        drawn += f'<circle class="{kind}" {middle} r="{ring:.1f}"/>'
    return drawn
