"""Synthetic demo data set, generated on first use: shapes on textured backgrounds, and a video of them.

It allows a first training run without a download. All pictures follow from one seed, so they are equal on every
machine. A class is an outline with a pattern; size, angle and colors are random. Shapes occlude each other, are
truncated by the image border, and are occluded by bars.
"""

import logging
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import write_text
from utils.images.image_files import write_image
from utils.labels.data_config import DataConfig
from utils.labels.writers import write_voc

GENERATOR = "demo"  # value of GENERATE in a data YAML
IMAGES: Mapping[str, int] = {"train": 280, "valid": 120}
VIDEO, TRACKS = "video.mp4", "video_tracks.txt"
MARKER = "demo_version.txt"  # in generated folders, to tell them from the user's
_VERSION = "2"  # of the pictures; those of another version are generated again
_SEED = 7
_HEIGHT, _WIDTH = 240, 320
_SUPERSAMPLING = 2  # factor by which pictures are drawn larger, for smooth edges
_MAX_OBJECTS = 6
_EMPTY = 0.08  # fraction of the images without objects
_RADIUS = (11.0, 52.0)  # px, half the extent of a shape
_TILT = 0.5  # radians, to either side
_MIN_VISIBLE = 0.45  # fraction of a shape's area; less visible shapes are not labeled
_COLORFULNESS = 0.4  # of the background texture
_FRAMES, _FPS = 120, 24
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Shape:
    """One object, in px of the final picture."""

    label: int  # index into _OUTLINES
    center: np.ndarray  # (2,) x, y
    radius: float
    stretch: float  # height / width
    angle: float  # radians
    colors: np.ndarray  # (2, 3), of its pattern

    def outline(self) -> np.ndarray:
        """(P, 2) float64 corners in px."""
        points = _OUTLINES[self.label] * self.radius * np.array([1.0, self.stretch])
        turn = np.array([[np.cos(self.angle), np.sin(self.angle)], [-np.sin(self.angle), np.cos(self.angle)]])
        return points @ turn + self.center


def make_demo(config: DataConfig) -> None:
    """Generate the data set in the config's folders unless it exists; an interrupted run leaves nothing behind.

    Raises:
        DataError: GENERATE, CLASSES or the folders of the YAML do not match the demo, or their common folder has other
            content.
    """
    root = _checked_root(config)
    version = _generated_version(root)
    if version == _VERSION:
        return
    unfinished = root.with_name(f".{root.name}.{uuid.uuid4().hex}.tmp")
    try:
        if version is None and root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise DataError(
                f"{config.path}: GENERATE would write the demo data set to {root}, which has other content: "
                "choose another folder, or empty this one"
            )
        log.info("Generating the demo data set in %s", root)
        _draw(unfinished, config.classes[1:])
        if version is not None:
            _move_aside(root)
        _move(unfinished, root)
    except OSError as error:
        raise DataError(f"{config.path}: the demo data set cannot be written to {root} ({error})") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checked_root(config: DataConfig) -> Path:
    """The folder above train/ and valid/, symbolic links resolved; raises DataError if the config is not the demo's."""
    if config.generate != GENERATOR:
        raise DataError(f"{config.path}: GENERATE is {config.generate!r}, expected {GENERATOR!r}, or remove the key")
    names = config.classes[1:]
    if len(names) != len(_OUTLINES):
        raise DataError(f"{config.path}: the demo has {len(_OUTLINES)} classes, CLASSES has {len(names)}")
    for split in IMAGES:
        if split not in config.splits:
            keys = f"{split.upper()}_DIR_IMAGES and {split.upper()}_DIR_LABELS"
            raise DataError(f"{config.path}: GENERATE needs {keys}: add them, as in data_configs/demo.yaml")
    splits = [config.splits[name] for name in IMAGES]
    folders = [folder.resolve() for split in splits for folder in (split.images, split.labels)]
    root = folders[0].parent.parent
    if folders != [root / split / kind for split in IMAGES for kind in ("images", "labels")]:
        raise DataError(
            f"{config.path}: GENERATE writes train/images, train/labels, valid/images and valid/labels of one folder, "
            f"not {', '.join(map(str, folders))}: name the folders like that"
        )
    if root in (Path.cwd(), *Path.cwd().parents):
        raise DataError(
            f"{config.path}: GENERATE would replace {root}, which contains the working directory: choose a subfolder"
        )
    return root


def _generated_version(root: Path) -> str | None:
    """Version of this module that generated the folder; None if the folder is not generated."""
    try:
        return (root / MARKER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _draw(folder: Path, names: Sequence[str]) -> None:
    """Generate everything in a new folder."""
    for number, (split, count) in enumerate(IMAGES.items()):
        images, labels_folder = folder / split / "images", folder / split / "labels"
        images.mkdir(parents=True)
        labels_folder.mkdir()
        for i in range(count):
            rng = np.random.default_rng([_SEED, number, i])
            picture, boxes, labels = _scene(rng)
            path = images / f"{split}_{i:03d}.jpg"
            write_image(path, picture)
            label_path = labels_folder / f"{path.stem}.xml"
            write_voc(label_path, path.name, picture.shape[:2], boxes, [names[label] for label in labels])
    _write_video(folder)
    write_text(folder / MARKER, _VERSION + "\n")


def _move_aside(root: Path) -> None:
    """Rename the folder of another version, to which the user may have added files."""
    number = 1
    while (aside := root.with_name(f"{root.name}_old_{number}")).exists():
        number += 1
    root.rename(aside)
    log.warning("Renamed %s, which is of another version, to %s", root, aside)


def _move(finished: Path, root: Path) -> None:
    """Rename a folder to `root`, unless another process has just done so."""
    try:
        if root.is_dir():
            root.rmdir()  # empty; Windows cannot rename onto an existing folder
        finished.rename(root)
    except OSError:
        if _generated_version(root) != _VERSION:
            raise


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a random picture, (H, W, 3) uint8 RGB, with boxes (N, 4) float64 and indices of outlines (N,)."""
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MAX_OBJECTS + 1))
    shapes = [_random_shape(rng) for _ in range(count)]
    bars = [_random_bar(rng) for _ in range(int(rng.integers(0, 3)))]
    picture, visible = _paint(_background(rng), shapes, bars)
    boxes, labels = [], []
    for shape, share in zip(shapes, visible, strict=True):
        if share >= _MIN_VISIBLE:
            boxes.append(_box(shape))
            labels.append(shape.label)
    noise = rng.normal(0, 4, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture, np.array(boxes).reshape(-1, 4), np.array(labels, int)


def _random_shape(rng: np.random.Generator) -> _Shape:
    radius = float(np.exp(rng.uniform(*np.log(_RADIUS))))
    return _Shape(
        label=int(rng.integers(len(_OUTLINES))),
        center=rng.uniform([0, 0], [_WIDTH, _HEIGHT]),
        radius=radius,
        stretch=float(rng.uniform(0.75, 1.0)),
        angle=float(rng.uniform(-_TILT, _TILT)),
        colors=np.array([rng.uniform(0, 255, 3), rng.choice([0, 255]) + rng.uniform(-40, 40, 3)]).clip(0, 255),
    )


def _random_bar(rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """Corners (4, 2) of a bar across the picture, and its color."""
    start, end = rng.uniform([0, 0], [_WIDTH, _HEIGHT], (2, 2))
    across = np.array([start[1] - end[1], end[0] - start[0]])
    half = across / max(1.0, float(np.linalg.norm(across))) * rng.uniform(2, 5)
    corners = np.array([start + half, end + half, end - half, start - half])
    return corners, tuple(int(v) for v in rng.integers(0, 256, 3))


def _background(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 texture: noise of four wavelengths, stronger in brightness than in color."""
    background = np.full((_HEIGHT, _WIDTH, 3), rng.uniform(60, 190) + rng.uniform(-35, 35, 3), np.float32)
    for cells, strength in ((2, 35), (6, 24), (20, 16), (60, 10)):
        gray = rng.normal(0, strength, (cells, cells + cells // 3, 1))
        color = rng.normal(0, strength * _COLORFULNESS, (cells, cells + cells // 3, 3))
        background += cv2.resize((gray + color).astype(np.float32), (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    return background.clip(0, 255)


def _paint(
    background: np.ndarray, shapes: list[_Shape], bars: list[tuple[np.ndarray, tuple[int, ...]]]
) -> tuple[np.ndarray, list[float]]:
    """Paint shapes, then bars, over the background; also returns the visible fraction of each shape's area."""
    size = (_WIDTH * _SUPERSAMPLING, _HEIGHT * _SUPERSAMPLING)
    canvas = cv2.resize(background, size, interpolation=cv2.INTER_LINEAR)
    visible_shape = np.full(size[::-1], -1, np.int16)  # the shape visible at each pixel, -1 for none
    areas = []
    for number, shape in enumerate(shapes):
        mask = _filled(shape.outline(), size)
        canvas[mask] = _pattern(shape, mask)
        visible_shape[mask] = number
        areas.append(abs(cv2.contourArea((shape.outline() * _SUPERSAMPLING).astype(np.float32))))
    for corners, color in bars:
        mask = _filled(corners, size)
        canvas[mask] = color
        visible_shape[mask] = -1
    visible = [float((visible_shape == n).sum() / max(1.0, area)) for n, area in enumerate(areas)]
    return cv2.resize(canvas, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA), visible


def _filled(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round(corners * _SUPERSAMPLING).astype(np.int32)], 1)
    return mask.astype(bool)


def _pattern(shape: _Shape, mask: np.ndarray) -> np.ndarray:
    """(N, 3) colors of the N pixels in the mask: rings, stripes, plain or checks, by label."""
    y, x = np.nonzero(mask)
    points = np.stack([x, y], 1) / _SUPERSAMPLING - shape.center
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    u, v = (points @ np.array([[cos, -sin], [sin, cos]])).T / shape.radius  # -1..1 inside the outline
    second = (
        np.hypot(u, v) * 3 % 2 >= 1,
        v * 3.5 % 2 >= 1,
        np.zeros(len(u), bool),
        (u * 2.5 % 2 >= 1) ^ (v * 2.5 % 2 >= 1),
    )
    return shape.colors[second[shape.label].astype(int)]


def _box(shape: _Shape) -> np.ndarray:
    """x1 y1 x2 y2 of the part inside the picture, occluded or not."""
    low, high = shape.outline().min(0), shape.outline().max(0)
    limit = np.array([_WIDTH, _HEIGHT], float)
    return np.round(np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)]), 1)


def _write_video(root: Path) -> None:
    """Write a video of moving shapes that occlude each other, and their boxes for evaluating a tracker.

    The boxes are MOTChallenge rows: frame, id, left, top, width, height, 1, class, visible fraction.
    """
    rng = np.random.default_rng([_SEED, len(IMAGES)])
    background = _background(rng)
    shapes = [_random_shape(rng) for _ in range(5)]
    speeds = rng.uniform(1.0, 2.5, (len(shapes), 2)) * rng.choice([-1, 1], (len(shapes), 2))
    spins = rng.uniform(-0.03, 0.03, len(shapes))
    writer = cv2.VideoWriter(str(root / VIDEO), cv2.VideoWriter_fourcc(*"mp4v"), _FPS, (_WIDTH, _HEIGHT))
    rows = []
    for frame in range(1, _FRAMES + 1):
        picture, visible = _paint(background, shapes, [])
        writer.write(cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2BGR))
        for number, (shape, share) in enumerate(zip(shapes, visible, strict=True), 1):
            x1, y1, x2, y2 = _box(shape)
            if share > 0 and x2 > x1 and y2 > y1:
                corner = f"{x1 + 1:g},{y1 + 1:g}"  # MOTChallenge coordinates are 1-based
                rows.append(f"{frame},{number},{corner},{x2 - x1:g},{y2 - y1:g},1,{shape.label + 1},{share:.2f}")
        shapes = [_moved(s, speed, spin) for s, speed, spin in zip(shapes, speeds, spins, strict=True)]
        centers = np.array([s.center for s in shapes])
        speeds *= np.where((centers < 0) & (speeds < 0) | (centers > [_WIDTH, _HEIGHT]) & (speeds > 0), -1, 1)
    writer.release()
    write_text(root / TRACKS, "\n".join(rows) + "\n")


def _moved(shape: _Shape, speed: np.ndarray, spin: float) -> _Shape:
    return _Shape(
        shape.label,
        shape.center + speed,
        shape.radius,
        shape.stretch,
        shape.angle + spin,
        shape.colors,
    )


_UP = -np.pi / 2  # radians, y points down


def _polygon(corners: int, first: float = 0.0) -> np.ndarray:
    angles = first + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _star(points: int) -> np.ndarray:
    return _polygon(2 * points, _UP) * np.where(np.arange(2 * points) % 2, 0.42, 1.0)[:, None]


def _cross(arm: float) -> np.ndarray:
    quarter = np.array([(arm, 1.0), (arm, arm), (1.0, arm), (1.0, -arm), (arm, -arm), (arm, -1.0)])
    return np.concatenate([quarter, -quarter]) * 0.9


_OUTLINES = (_polygon(48), _polygon(3, _UP), _star(5), _cross(0.36))  # disc, triangle, star, cross; radius 1
