"""Thumbnails of a data set's images, embedded in an HTML page."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.data_tools.check import UNKNOWN_CLASS_KINDS, DataCheck, Problem
from utils.data_tools.statistics import SplitBoxes
from utils.errors import DataError
from utils.images.image_files import is_image_name, read_image
from utils.labels.index import SplitContent
from utils.labels.readers import UNKNOWN
from utils.visualize.drawing import draw_ground_truth
from utils.visualize.html import html_text
from utils.visualize.pages import data_uri

_SAMPLE_SIDE, _THUMBNAIL_SIDE = 360, 260  # px, longer side
_QUALITY = 80  # of the JPEGs
_MAX_BYTES = 4_000_000  # of all pictures of a page
_MAX_BOXES = 300  # boxes drawn of each kind
_MARGIN = 0.5  # of the image's side: how far outside the image boxes are shown
_BOX = re.compile(r"box (\d+)\b")
_COPY = re.compile(r"the same as (.+?)(?: of (train|valid|test))?", re.DOTALL)


class Target(NamedTuple):
    """An image that a problem is about."""

    split: str
    path: Path
    image: int | None  # index in the split's reading; None for a broken image, which is not in it
    box: int | None = None  # number in its label file, from 1; None if the problem is not about a single box
    unknown: bool = False  # the problem is about boxes of classes missing from CLASSES


class Album:
    """Encoder of images as data: URIs, up to a total size."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES

    def sample(self, reading: SplitContent, split: SplitBoxes, image: int, classes: tuple[str, ...]) -> str | None:
        """Build an <img> of an image with its training boxes; None if it cannot be read or the album is full."""
        pixels = _pixels(reading, image)
        if pixels is None:
            return None
        rows, small = split.rows(image), _reduced(pixels, _SAMPLE_SIDE)
        scale = np.array(small.shape[1::-1] * 2) / np.array(pixels.shape[1::-1] * 2)
        drawn = draw_ground_truth(small, split.boxes[rows] * scale, split.labels[rows], classes)
        uri = self._uri(drawn)
        alt = html_text(f"{reading.images[image].name}, with its boxes")
        size = f'width="{small.shape[1]}" height="{small.shape[0]}"'
        return uri and f'<img loading="lazy" src="{uri}" alt="{alt}" {size}>'

    def thumbnail(self, target: Target, reading: SplitContent) -> str | None:
        """Build an <svg> of an image with its boxes as written in the label file.

        Returns None if the image cannot be read or the album is full.
        """
        pixels = _decoded(target.path) if target.image is None else _pixels(reading, target.image)
        if pixels is None:
            return None
        uri = self._uri(_reduced(pixels, _THUMBNAIL_SIDE))
        if uri is None:
            return None
        height, width = pixels.shape[:2]
        boxes, marked = _boxes_of(reading, target)
        left, top, right, bottom = _field(width, height, boxes[marked])
        view_box = f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"'
        image = f'<image href="{uri}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        others = "".join(_rectangle(box, "other") for box in boxes[~marked][:_MAX_BOXES])
        ring = max(width, height) / 30
        highlighted = "".join(_rectangle(box, "highlighted", ring) for box in boxes[marked][:_MAX_BOXES])
        alt = html_text(target.path.name + (", affected boxes highlighted" if highlighted else ""))
        return f'<svg class="thumb" {view_box} role="img" aria-label="{alt}">{image}{others}{highlighted}</svg>'

    def _uri(self, rgb: np.ndarray) -> str | None:
        data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        self._left -= len(data) * 4 // 3
        return data_uri("jpeg", data) if self._left >= 0 else None


def find_targets(checked: DataCheck, problems: Iterable[Problem]) -> dict[Problem, list[Target]]:
    """Find the images that each problem is about: one, two for a duplicate, none if the problem names no image."""
    problems = list(problems)
    originals = {problem: _original(problem) for problem in problems}
    names = {original for original in originals.values() if original}
    paths = {(problem.split, problem.path) for problem in problems}
    by_path, by_name = {}, {}
    for split, reading in checked.readings.items():
        for target, label_path in _images(split, reading, checked.splits[split].labels):
            for path in (str(target.path), label_path):
                if (split, path) in paths:
                    by_path.setdefault((split, path), target)
            key = split, target.path.relative_to(reading.images.folder).as_posix()
            if key in names:
                by_name[key] = target
    targets: dict[Problem, list[Target]] = {}
    for problem in problems:
        path = Path(problem.path)
        unread = Target(problem.split, path, None) if is_image_name(path) else None
        target = by_path.get((problem.split, problem.path), unread)
        box = _BOX.match(problem.detail)
        if target and box:
            target = target._replace(box=int(box[1]))
        elif target and problem.kind in UNKNOWN_CLASS_KINDS:
            target = target._replace(unknown=True)
        targets[problem] = [each for each in (target, by_name.get(originals[problem])) if each]
    return targets


def _original(problem: Problem) -> tuple[str, str] | None:
    """Split and name of the image that this one is a copy of."""
    match = _COPY.fullmatch(problem.detail)
    return (match[2] or problem.split, match[1]) if match else None


def _images(split: str, reading: SplitContent, labels: str) -> Iterable[tuple[Target, str | None]]:
    """Every image of a split with the `path` of a problem of its labels."""
    folder = Path(labels).parent if Path(labels).is_file() else Path(labels)
    for image, (path, name) in enumerate(zip(reading.images, reading.label_names, strict=True)):
        yield Target(split, path, image), f"{folder}/{name}" if name else None
    for broken in reading.unreadable:
        yield Target(split, broken.image, None), f"{folder}/{broken.label_name}" if broken.label_name else None


def _pixels(reading: SplitContent, image: int) -> np.ndarray | None:
    """Pixels in the orientation that the boxes refer to; None if unreadable or of another size than the reading."""
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
    """The boxes of an image as written, (n, 4), and a mask of those that the problem is about, (n,) bool."""
    if target.image is None:
        return np.empty((0, 4)), np.empty(0, bool)
    first, last = np.searchsorted(reading.image_of_box, (target.image, target.image + 1))
    if target.box is not None:
        return reading.boxes[first:last], np.arange(1, last - first + 1) == target.box
    unknown = reading.labels[first:last] == UNKNOWN
    return reading.boxes[first:last], unknown & target.unknown


def _field(width: int, height: int, boxes: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the area that a thumbnail shows: the image and these boxes, within limits."""
    boxes = boxes[np.isfinite(boxes).all(1)]
    x = np.clip(boxes[:, ::2], -_MARGIN * width, (1 + _MARGIN) * width)
    y = np.clip(boxes[:, 1::2], -_MARGIN * height, (1 + _MARGIN) * height)
    return x.min(initial=0), y.min(initial=0), x.max(initial=width), y.max(initial=height)


def _rectangle(box: np.ndarray, kind: str, ring: float = 0) -> str:
    """SVG of a box; one smaller than `ring` gets a circle of this radius, to be visible."""
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
