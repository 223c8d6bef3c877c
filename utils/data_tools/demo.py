"""A small data set that the project draws by itself: shapes on textured grounds, and a video of them.

It makes the first training run possible without a download. Everything follows from one seed, so that every machine
has the same pictures. A class is an outline and a pattern; size, angle and colors are random, shapes hide one another
and are cut off by the border, and bars in front of them hide more.
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
MARKER = "demo_version.txt"  # tells a folder that we drew from one of the user's
_VERSION = "2"  # of the pictures; what another version drew is drawn anew
_SEED = 7
_HEIGHT, _WIDTH = 240, 320
_SUPERSAMPLING = 2  # drawn so much larger and reduced, for smooth edges
_MAX_OBJECTS = 6
_EMPTY = 0.08  # of the images have no object
_RADIUS = (11.0, 52.0)  # px, half the extent of a shape
_TILT = 0.5  # radians, to either side
_MIN_VISIBLE = 0.45  # of a shape's area; what is hidden more is not labeled
_COLORFULNESS = 0.4  # of the ground's texture
_FRAMES, _FPS = 120, 24
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Shape:
    """One object, in px of the final picture."""

    label: int  # index into the outlines
    center: np.ndarray  # (2,) x, y
    radius: float
    stretch: float  # height over width
    angle: float  # radians
    colors: np.ndarray  # (2, 3) float32, of its pattern

    def outline(self) -> np.ndarray:
        """(P, 2) float64 corners in px."""
        points = _OUTLINES[self.label] * self.radius * np.array([1.0, self.stretch])
        turn = np.array([[np.cos(self.angle), np.sin(self.angle)], [-np.sin(self.angle), np.cos(self.angle)]])
        return points @ turn + self.center


def make_demo(config: DataConfig) -> None:
    """Draw the data set where the config's folders say, unless it is there: as a whole or not at all.

    Raises:
        DataError: GENERATE, CLASSES or the folders of the YAML are not those of the demo, or the folder that they
            share holds something that the project did not draw.
    """
    root = _checked_root(config)
    drawn = _drawn_version(root)
    if drawn == _VERSION:
        return
    unfinished = root.with_name(f".{root.name}.{uuid.uuid4().hex}.tmp")
    try:
        if drawn is None and root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise DataError(
                f"{config.path}: GENERATE would draw the demo data set in {root}, which holds something else: "
                "name another folder, or empty this one"
            )
        log.info("Drawing the demo data set in %s", root)
        _draw(unfinished, config.classes[1:])
        if drawn is not None:
            _move_aside(root)
        _move(unfinished, root)
    except OSError as error:
        raise DataError(f"{config.path}: the demo data set cannot be drawn in {root} ({error})") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checked_root(config: DataConfig) -> Path:
    """The folder above train/ and valid/ of a config that asks for this data set, symbolic links followed."""
    if config.generate != GENERATOR:
        raise DataError(f"{config.path}: GENERATE is {config.generate!r}, expected {GENERATOR!r}, or leave it out")
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
            f"{config.path}: GENERATE draws train/images, train/labels, valid/images and valid/labels of one folder, "
            f"not {', '.join(map(str, folders))}: name its folders so"
        )
    if root in (Path.cwd(), *Path.cwd().parents):
        raise DataError(f"{config.path}: GENERATE makes {root} anew, where you work: name a folder of its own below it")
    return root


def _drawn_version(root: Path) -> str | None:
    """What version of this module drew what is in the folder; None where it is not ours."""
    try:
        return (root / MARKER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _draw(folder: Path, names: Sequence[str]) -> None:
    """Draw everything into a new folder."""
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
    """Rename what another version drew: somebody may have added to it."""
    number = 1
    while (aside := root.with_name(f"{root.name}_old_{number}")).exists():
        number += 1
    root.rename(aside)
    log.warning("%s, of another version, is %s now", root, aside)


def _move(finished: Path, root: Path) -> None:
    """Rename a folder to `root`, unless another process has just done so."""
    try:
        if root.is_dir():
            root.rmdir()  # it is empty; Windows renames onto nothing that is there
        finished.rename(root)
    except OSError:
        if _drawn_version(root) != _VERSION:
            raise


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 RGB with its boxes (N, 4) float64 and outline numbers (N,)."""
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MAX_OBJECTS + 1))
    shapes = [_random_shape(rng) for _ in range(count)]
    bars = [_random_bar(rng) for _ in range(int(rng.integers(0, 3)))]
    picture, visible = _paint(_ground(rng), shapes, bars)
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
    """A quadrilateral across the picture, and its color."""
    start, end = rng.uniform([0, 0], [_WIDTH, _HEIGHT], (2, 2))
    across = np.array([start[1] - end[1], end[0] - start[0]])
    half = across / max(1.0, float(np.linalg.norm(across))) * rng.uniform(2, 5)
    corners = np.array([start + half, end + half, end - half, start - half])
    return corners, tuple(int(v) for v in rng.integers(0, 256, 3))


def _ground(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 texture: noise of four wavelengths, more in brightness than in color."""
    ground = np.full((_HEIGHT, _WIDTH, 3), rng.uniform(60, 190) + rng.uniform(-35, 35, 3), np.float32)
    for cells, strength in ((2, 35), (6, 24), (20, 16), (60, 10)):
        gray = rng.normal(0, strength, (cells, cells + cells // 3, 1))
        color = rng.normal(0, strength * _COLORFULNESS, (cells, cells + cells // 3, 3))
        ground += cv2.resize((gray + color).astype(np.float32), (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    return ground.clip(0, 255)


def _paint(
    ground: np.ndarray, shapes: list[_Shape], bars: list[tuple[np.ndarray, tuple[int, ...]]]
) -> tuple[np.ndarray, list[float]]:
    """Paint shapes, then bars, over the ground; and which share of each shape's area can be seen."""
    size = (_WIDTH * _SUPERSAMPLING, _HEIGHT * _SUPERSAMPLING)
    canvas = cv2.resize(ground, size, interpolation=cv2.INTER_LINEAR)
    owner = np.full(size[::-1], -1, np.int16)  # the shape that is seen at each place
    areas = []
    for number, shape in enumerate(shapes):
        mask = _filled(shape.outline(), size)
        canvas[mask] = _pattern(shape, mask)
        owner[mask] = number
        areas.append(abs(cv2.contourArea((shape.outline() * _SUPERSAMPLING).astype(np.float32))))
    for corners, color in bars:
        mask = _filled(corners, size)
        canvas[mask] = color
        owner[mask] = -1
    visible = [float((owner == n).sum() / max(1.0, area)) for n, area in enumerate(areas)]
    return cv2.resize(canvas, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA), visible


def _filled(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round(corners * _SUPERSAMPLING).astype(np.int32)], 1)
    return mask.astype(bool)


def _pattern(shape: _Shape, mask: np.ndarray) -> np.ndarray:
    """(N, 3) colors of the places in the mask: rings, stripes, plain, or checks."""
    y, x = np.nonzero(mask)
    places = np.stack([x, y], 1) / _SUPERSAMPLING - shape.center
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    u, v = (places @ np.array([[cos, -sin], [sin, cos]])).T / shape.radius  # -1..1 inside the outline
    second = (
        np.hypot(u, v) * 3 % 2 >= 1,
        v * 3.5 % 2 >= 1,
        np.zeros(len(u), bool),
        (u * 2.5 % 2 >= 1) ^ (v * 2.5 % 2 >= 1),
    )
    return shape.colors[second[shape.label].astype(int)]


def _box(shape: _Shape) -> np.ndarray:
    """x1 y1 x2 y2 of the part inside the picture, hidden or not."""
    low, high = shape.outline().min(0), shape.outline().max(0)
    limit = np.array([_WIDTH, _HEIGHT], float)
    return np.round(np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)]), 1)


def _write_video(root: Path) -> None:
    """Shapes that cross, hide one another and bounce; and their boxes as MOTChallenge rows
    (frame, id, left, top, width, height, 1, class, 1), for judging a tracker."""
    rng = np.random.default_rng([_SEED, len(IMAGES)])
    ground = _ground(rng)
    shapes = [_random_shape(rng) for _ in range(5)]
    speeds = rng.uniform(1.0, 2.5, (len(shapes), 2)) * rng.choice([-1, 1], (len(shapes), 2))
    spins = rng.uniform(-0.03, 0.03, len(shapes))
    writer = cv2.VideoWriter(str(root / VIDEO), cv2.VideoWriter_fourcc(*"mp4v"), _FPS, (_WIDTH, _HEIGHT))
    rows = []
    for frame in range(1, _FRAMES + 1):
        picture, visible = _paint(ground, shapes, [])
        writer.write(cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2BGR))
        for number, (shape, share) in enumerate(zip(shapes, visible, strict=True), 1):
            x1, y1, x2, y2 = _box(shape)
            if share > 0 and x2 > x1 and y2 > y1:
                corner = f"{x1 + 1:g},{y1 + 1:g}"  # MOTChallenge's pixels count from 1
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
