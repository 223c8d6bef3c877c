"""Ground truth and detections without images, for tests of metrics."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.detect.detections import Detections
from utils.images.file_lists import FileList
from utils.images.image_files import write_image
from utils.labels.index import LabelIndex, LabelReport

SCENE_CLASSES = ("__background__", "a", "b", "c")
NOTHING = Detections(np.empty((0, 4)), np.empty(0), np.empty(0, int))


def index_of(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> LabelIndex:
    """An index of images that each have boxes, labels and ignored."""
    boxes, labels, ignored = (
        np.concatenate([image[k] for image in images]) if images else np.empty(0) for k in range(3)
    )
    return LabelIndex(
        files=FileList(Path(), [f"{i}.jpg" for i in range(len(images))]),
        sizes=np.full((len(images), 2), 300),
        as_stored=np.zeros(len(images), bool),
        offsets=np.concatenate([[0], np.cumsum([len(image[0]) for image in images])]).astype(int),
        boxes=boxes.astype(np.float32).reshape(-1, 4),
        labels=labels.astype(np.int64),
        ignored=ignored.astype(bool),
        classes=SCENE_CLASSES,
        report=LabelReport(),
    )


def random_scene(seed: int, images: int) -> tuple[LabelIndex, dict[int, Detections]]:
    """Ground truth of all sizes, some ignored; detections near it, elsewhere, doubled, and with tied scores."""
    rng = np.random.default_rng(seed)
    truth, detections = [], {}
    for i in range(images):
        count = int(rng.integers(0, 8))
        corners = rng.uniform(0, 150, (count, 2))
        boxes = np.concatenate([corners, corners + np.exp(rng.uniform(0.5, 5, (count, 2)))], 1).astype(np.float32)
        labels = rng.integers(1, 4, count)
        truth.append((boxes, labels, rng.random(count) < 0.15))
        near = boxes[rng.random(count) < 0.8] + rng.normal(0, 4, (1, 4))
        found = np.concatenate([near, near, rng.uniform(0, 150, (int(rng.integers(0, 4)), 4))]).astype(np.float32)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = np.sort(rng.integers(1, 20, len(found)) / 20)[::-1].astype(np.float32)
        if rng.random() < 0.9:
            detections[i] = Detections(found, scores, rng.integers(1, 4, len(found)))
    return index_of(truth), detections


def one_box(ignored: bool = False) -> LabelIndex:
    return index_of([(np.array([[10, 10, 60, 60]]), np.array([1]), np.array([ignored]))])


def detections_of(*boxes: tuple, label: int = 1) -> dict[int, Detections]:
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    return {0: Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.full(len(boxes), label))}


def with_pictures(folder: Path, index: LabelIndex, names: list[str] | None = None) -> LabelIndex:
    """The index, with an image of 300 x 300 px for each of its files."""
    folder.mkdir()
    index = replace(index, files=FileList(folder, names or index.files.names))
    for i in range(len(index)):
        write_image(index.path(i), np.full((300, 300, 3), 120, np.uint8))
    return index


def scene_with_images(folder: Path, classes: int = 3, images: int = 6) -> tuple[LabelIndex, dict[int, Detections]]:
    index, detections = random_scene(3, images)
    rng = np.random.default_rng(0)
    index = replace(
        with_pictures(folder / "images", index),
        classes=("__background__", *(f"class {k}" for k in range(1, classes + 1))),
        labels=rng.integers(1, classes + 1, len(index.labels)),
    )
    return index, {i: replace(d, labels=rng.integers(1, classes + 1, len(d))) for i, d in detections.items() if len(d)}
