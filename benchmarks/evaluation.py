"""Compare our evaluator with pycocotools on generated data: time, ratio, and equality of the results.

python -m benchmarks.evaluation
python -m benchmarks.evaluation --images 500 --detections 20
"""

import argparse
import contextlib
import io
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from torch_utils.evaluation.coco_eval import coco_metrics
from utils.detect.detections import Detections
from utils.images.file_lists import FileList
from utils.labels.index import LabelIndex, LabelReport

TOLERANCE = 1e-12
SIDE = 640  # px of every image
BOXES = 8  # ground-truth boxes per image; COCO's val2017 has 7.4
NEAR = 0.3  # share of detections near a ground-truth box
CROWD = 0.01  # share of crowd boxes


def generate(
    images: int, detections_per_image: int, classes: int, seed: int
) -> tuple[LabelIndex, dict[int, Detections]]:
    """Generate ground truth of all sizes, and detections, some of them near it."""
    rng = np.random.default_rng(seed)
    count = images * BOXES
    boxes, labels = _boxes(rng, count), rng.integers(1, classes + 1, count).astype(np.int32)
    index = LabelIndex(
        files=FileList(Path(), [f"{i}.jpg" for i in range(images)]),
        sizes=np.full((images, 2), SIDE, np.int32),
        as_stored=np.zeros(images, bool),
        offsets=np.arange(images + 1) * BOXES,
        boxes=boxes,
        labels=labels,
        ignored=rng.random(count) < CROWD,
        classes=("__background__", *(f"class {k}" for k in range(1, classes + 1))),
        report=LabelReport(),
    )
    detections = {}
    for i in range(images):
        rows = index.rows(i)
        detections[i] = _detections(rng, boxes[rows], labels[rows], detections_per_image, classes)
    return index, detections


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(0, SIDE / 2, (count, 2))
    return np.concatenate([corners, corners + np.exp(rng.uniform(2, 5.7, (count, 2)))], 1).astype(np.float32)


def _detections(
    rng: np.random.Generator, boxes: np.ndarray, labels: np.ndarray, count: int, classes: int
) -> Detections:
    detected, kinds = _boxes(rng, count), rng.integers(1, classes + 1, count)
    near = np.flatnonzero(rng.random(count) < NEAR)
    target = rng.integers(0, len(boxes), len(near))
    sides = np.tile(boxes[target, 2:] - boxes[target, :2], 2)
    detected[near] = boxes[target] + rng.normal(0, 0.08, (len(near), 4)) * sides
    detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2] + 1)
    kinds[near] = labels[target]
    scores = np.sort(rng.random(count).astype(np.float32))[::-1]
    return Detections(detected, scores, kinds)


def pycocotools_numbers(index: LabelIndex, detections: Mapping[int, Detections]) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate with pycocotools as its users do: the twelve numbers, and (classes, 2) AP and AP50."""
    sides = index.boxes[:, 2:].astype(np.float64) - index.boxes[:, :2]
    annotations = [
        {
            "id": i, "image_id": image, "category_id": label, "iscrowd": crowd,
            "bbox": [*corner, *side], "area": side[0] * side[1],
        }
        for i, (image, label, crowd, corner, side) in enumerate(
            zip(
                index.image_of_box().tolist(), index.labels.tolist(), index.ignored.astype(int).tolist(),
                index.boxes[:, :2].tolist(), sides.tolist(), strict=True,
            ),
            start=1,
        )
    ]  # fmt: skip
    results = [
        {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for i, result in detections.items()
        for (x1, y1, x2, y2), score, label in zip(
            result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": i} for i in range(len(index))], "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(index.classes) if k],
        }  # fmt: skip
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    return evaluator.stats, np.stack([_means(precision), _means(precision[:1])], 1)


def _means(precision: np.ndarray) -> np.ndarray:
    return np.array([p[p > -1].mean() if (p > -1).any() else np.nan for p in np.moveaxis(precision, 2, 0)])


def main() -> None:
    """Generate data, run both evaluators, and compare."""
    parser = argparse.ArgumentParser(description="The evaluator against pycocotools.")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3, help="of our evaluator; the median is reported")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    index, detections = generate(options.images, options.detections, options.classes, options.seed)
    times = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        ours = coco_metrics(index, detections)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    stats, per_class = pycocotools_numbers(index, detections)
    theirs = time.perf_counter() - started
    off = np.abs(np.array(ours.stats) - stats).max()
    of_classes = np.array([(c.ap, c.ap50) for c in ours.per_class])
    off_class = np.nanmax(np.abs(of_classes - per_class))
    alike = (np.isnan(of_classes) == np.isnan(per_class)).all()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        f"pycocotools {version('pycocotools')}"
    )
    print(f"{options.images} images x {options.detections} detections x {options.classes} classes")
    print(f"pycocotools {theirs:.2f} s, ours {np.median(times):.2f} s: {theirs / np.median(times):.1f} times as fast")
    print(f"largest difference: {off:.1e} in the twelve numbers, {off_class:.1e} in a class's AP and AP50")
    if max(off, off_class) > TOLERANCE or not alike:
        sys.exit("the numbers are not equal")


if __name__ == "__main__":
    main()
