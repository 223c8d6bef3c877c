"""Synthetic videos with known tracks and simulated detections, for each difficulty of tracking alone and together.

A scene has boxes on smooth paths at several depths. Nearer objects occlude farther ones. The score of an object falls
with its visible share; below a quarter it is not detected. Everything is determined by the seed.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from utils.detect.detections import Detections
from utils.tracking.tracks import Tracks

HEIGHT, WIDTH, FPS = 360, 640, 30
CLASS_NAMES = ("__background__", "person", "car")
_VISIBLE = 0.25  # visible share from which an object is detected and is part of the ground truth
_GROUND = (96, 104, 96)


@dataclass(frozen=True)
class Walker:
    """A moving object, in px of the frame of an unmoved camera."""

    label: int
    size: tuple[float, float]  # width, height
    start: tuple[float, float]  # center at frame 0
    speed: tuple[float, float]  # px a frame
    depth: float  # the smaller, the nearer
    sway: tuple[float, float] = (0.0, 1.0)  # px up and down, and frames of one swing
    turns: int | None = None  # frame in which it turns around

    def center(self, frame: int) -> tuple[float, float]:
        """x, y of the center of its box."""
        steps = frame if self.turns is None or frame < self.turns else 2 * self.turns - frame
        swing = self.sway[0] * np.sin(2 * np.pi * frame / self.sway[1])
        return self.start[0] + self.speed[0] * steps, self.start[1] + self.speed[1] * steps + swing


@dataclass(frozen=True)
class Faults:
    """Errors of the simulated detector."""

    jitter: float = 0.02  # standard deviation of each edge, as a share of the box's sides
    missed: float = 0.0  # share of visible objects without a detection
    false_alarms: float = 0.0  # false positives per frame
    weak: float = 0.0  # share of boxes with a score of 0.1 to 0.3
    doubled: float = 0.0  # score of the other class on every second object, as a share of the right one's
    confused: float = 0.0  # share of boxes whose class is the wrong one, with the right one below it


@dataclass(frozen=True)
class Scene:
    """A video of `frames` frames."""

    name: str
    walkers: tuple[Walker, ...]
    frames: int = 150
    faults: Faults = Faults()
    pillars: tuple[tuple[float, float, float, float], ...] = ()  # boxes in the world that hide what is behind them
    camera: Callable[[int], tuple[float, float]] = field(default=lambda _: (0.0, 0.0))  # frame -> px it has moved
    seed: int = 0

    def truth(self) -> list[Tracks]:
        """Visible objects of each frame, with ids from 1."""
        return [self._visible(frame)[0] for frame in range(self.frames)]

    def detections(self) -> list[Detections]:
        """Simulated detections of each frame, best first."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode())])
        return [self._detect(*self._visible(frame), rng) for frame in range(self.frames)]

    def picture(self, frame: int) -> np.ndarray:
        """(HEIGHT, WIDTH, 3) uint8 RGB."""
        image = np.full((HEIGHT, WIDTH, 3), _GROUND, np.uint8)
        shift = np.array(self.camera(frame))
        for x in range(-WIDTH, 2 * WIDTH, 80):  # lines on the ground that show the camera motion
            left = round(x - shift[0])
            cv2.line(image, (left, 0), (left - 60, HEIGHT), (88, 94, 88), 2, cv2.LINE_AA)
        for index in sorted(range(len(self.walkers)), key=lambda i: -self.walkers[i].depth):
            _paint(image, self._box(index, frame), index)
        for pillar in self.pillars:
            x1, y1, x2, y2 = np.round(np.array(pillar) - np.tile(shift, 2)).astype(int).tolist()
            cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (60, 52, 48), -1)
        return image

    def _box(self, index: int, frame: int) -> np.ndarray:
        walker = self.walkers[index]
        center, half = np.array(walker.center(frame)) - self.camera(frame), np.array(walker.size) / 2
        return np.concatenate([center - half, center + half])

    def _visible(self, frame: int) -> tuple[Tracks, np.ndarray]:
        """Visible objects, and the visible share of each, 0..1."""
        kept, shares = [], []
        for index, walker in enumerate(self.walkers):
            box = self._box(index, frame)
            hiding = [self._box(i, frame) for i, w in enumerate(self.walkers) if w.depth < walker.depth]
            hiding += [np.array(p) - np.tile(self.camera(frame), 2) for p in self.pillars]
            share = _visible_share(box, hiding)
            if share >= _VISIBLE:
                kept.append(index)
                shares.append(share)
        boxes = np.array([self._box(i, frame) for i in kept], np.float32).reshape(-1, 4)
        labels = np.array([self.walkers[i].label for i in kept], np.int64)
        tracks = Tracks(_clipped(boxes), np.array(kept, np.int64) + 1, labels, np.ones(len(kept), np.float32))
        return tracks, np.array(shares)

    def _detect(self, tracks: Tracks, visible: np.ndarray, rng: np.random.Generator) -> Detections:
        faults, count = self.faults, len(tracks)
        sides = np.tile(tracks.boxes[:, 2:] - tracks.boxes[:, :2], 2)
        boxes = tracks.boxes + rng.normal(0, 1, (count, 4)) * faults.jitter * sides
        scores = np.clip(visible - 0.05 + rng.normal(0, 0.05, count), 0.06, 0.99)
        scores = np.where(rng.random(count) < faults.weak, rng.uniform(0.1, 0.3, count), scores)
        detected = rng.random(count) >= faults.missed
        labels = tracks.labels.copy()
        swapped = (rng.random(count) < faults.confused) & detected
        extra_labels = labels[swapped].copy()
        labels[swapped] = 3 - labels[swapped]
        alarms = rng.poisson(faults.false_alarms)
        corner = rng.uniform((0, 0), (WIDTH - 60, HEIGHT - 60), (alarms, 2))
        noise = np.concatenate([corner, corner + rng.uniform(20, 60, (alarms, 2))], 1)
        all_boxes = np.concatenate([boxes[detected], boxes[swapped], noise])
        all_scores = np.concatenate([scores[detected], scores[swapped] * 0.5, rng.uniform(0.06, 0.6, alarms)])
        all_labels = np.concatenate([labels[detected], extra_labels, rng.integers(1, len(CLASS_NAMES), alarms)])
        if faults.doubled:
            second = detected & (tracks.ids % 2 == 0)
            trembling = boxes[second] + rng.normal(0, 1, (second.sum(), 4)) * faults.jitter * sides[second]
            all_boxes = np.concatenate([all_boxes, trembling])
            all_scores = np.concatenate([all_scores, scores[second] * faults.doubled])
            all_labels = np.concatenate([all_labels, 3 - tracks.labels[second]])
        order = np.argsort(-all_scores, kind="stable")
        return Detections(
            _clipped(all_boxes[order]).astype(np.float32), all_scores[order].astype(np.float32), all_labels[order]
        )


def _clipped(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes, 0, np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], boxes.dtype))


def _visible_share(box: np.ndarray, hiding: list[np.ndarray]) -> float:
    """Share of a box's area inside the frame and behind none of `hiding`, in whole pixels."""
    width, height = (max(1, round(side)) for side in box[2:] - box[:2])
    free = np.ones((height, width), bool)
    for other in (*hiding, np.array([-1e6, -1e6, 0, 1e6]), np.array([WIDTH, -1e6, 1e6, 1e6])):
        x1, y1, x2, y2 = np.round(other - np.tile(box[:2], 2)).astype(int).clip(0, max(width, height)).tolist()
        free[y1:y2, x1:x2] = False
    free[: round(max(0.0, -box[1]))] = False
    free[max(0, round(HEIGHT - box[1])) :] = False
    return float(free.mean())


def _paint(image: np.ndarray, box: np.ndarray, index: int) -> None:
    """Draw an object with its own color and stripes."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    rng = np.random.default_rng(index + 1)
    colors = rng.integers(40, 256, (2, 3)).tolist()
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), colors[0], -1)
    period = int(rng.integers(6, 16))
    for y in range(y1 + period // 2, y2 - 1, period):
        cv2.line(image, (x1 + 2, y), (x2 - 3, y), colors[1], 2)


def _crowd(seed: int, count: int, speed: float = 3.0) -> tuple[Walker, ...]:
    """People and cars moving in all directions."""
    rng = np.random.default_rng(seed)
    walkers = []
    for number in range(count):
        label = 1 + number % 2
        size = tuple(rng.uniform(*(((24, 60), (40, 100)) if label == 1 else ((70, 36), (110, 56)))))
        start = rng.uniform((60, 60), (WIDTH - 60, HEIGHT - 60))
        direction = rng.uniform(0, 2 * np.pi)
        pace = rng.uniform(0.3, 1.0) * speed
        walkers.append(
            Walker(
                label, size, tuple(start), (pace * np.cos(direction), 0.4 * pace * np.sin(direction)),
                depth=-start[1], sway=(rng.uniform(0, 6), rng.uniform(20, 60)), turns=int(rng.integers(40, 120)),
            )
        )  # fmt: skip
    return tuple(walkers)


def _shaken(frame: int) -> tuple[float, float]:
    """Offset of a panning hand-held camera: up to about 8 px from frame to frame."""
    return 60 * np.sin(frame / 25) + 6 * np.sin(frame * 1.9), 12 * np.sin(frame / 17) + 5 * np.sin(frame * 2.3)


_PEOPLE = (Walker(1, (36, 90), (40, 180), (4, 0), 2), Walker(1, (36, 90), (600, 190), (-4, 0), 1))
_FAULTY = Faults(jitter=0.04, missed=0.1, false_alarms=0.5, weak=0.15)

SCENES: Mapping[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("crossing", _PEOPLE),
        Scene("occlusion", (Walker(1, (36, 90), (60, 180), (4, 0), 2),), pillars=((300, 60, 372, 300),)),
        Scene(
            "meeting",  # three crossing objects at different depths, partly behind a pillar
            (*_PEOPLE, Walker(1, (34, 84), (320, 60), (0, 1.2), 3), Walker(2, (100, 50), (0, 230), (5, 0), 0.5)),
            pillars=((440, 40, 480, 330),),
        ),
        Scene("misses", _crowd(1, 8), faults=Faults(missed=0.3)),
        Scene("false alarms", _crowd(2, 8), faults=Faults(false_alarms=3.0)),
        Scene("jitter", _crowd(3, 8), faults=Faults(jitter=0.08)),
        Scene("weak scores", _crowd(4, 8), faults=Faults(weak=0.5)),
        Scene("confused classes", _crowd(5, 8), faults=Faults(confused=0.2)),
        Scene("double classes", _crowd(9, 8), faults=Faults(doubled=0.5)),
        Scene("moving camera", _crowd(6, 8), camera=_shaken),
        Scene("crowd", _crowd(7, 25), faults=_FAULTY),
        Scene("crowd, moving camera", _crowd(8, 16), faults=_FAULTY, camera=_shaken),
    )
}


def with_seed(scene: Scene, seed: int) -> Scene:
    """The same objects with other random detection errors."""
    return replace(scene, seed=seed)
