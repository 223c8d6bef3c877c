"""Compare sliced detection with SAHI's own loop over slices: time, merging and accuracy.

python -m benchmarks.sliced data --demo data/demo --output large     # 3 x 3 pictures of the demo in one, 960 x 720 px
OMP_NUM_THREADS=1 python -m benchmarks.sliced time --data large/data.yaml --weights best_model.pth
OMP_NUM_THREADS=1 python -m benchmarks.sliced merge
OMP_NUM_THREADS=1 python -m benchmarks.sliced find --data large/data.yaml --weights best_model.pth
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import yaml
from sahi.models.torchvision import TorchVisionDetectionModel
from sahi.postprocess.backends import set_postprocess_backend
from sahi.predict import POSTPROCESS_NAME_TO_CLASS, get_sliced_prediction
from sahi.prediction import ObjectPrediction

from torch_utils.evaluation.coco_eval import coco_metrics
from torch_utils.predict import load_detector
from utils.cli.options import POSTPROCESS_TYPES
from utils.detect.detections import Detections
from utils.detect.detector import Detector
from utils.images.image_files import write_image
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.labels.writers import write_voc
from utils.slicing.grid import Slices
from utils.slicing.merging import Merging, merge
from utils.slicing.sahi_model import SahiModel
from utils.slicing.sliced_detector import SlicedDetector

SLICES = Slices(240, 320)  # px, a picture of the demo
THRESHOLD = 0.3
_SIDE = 3  # images of the demo in a row and a column of a large one


def write_large_pictures(demo: Path, output: Path) -> None:
    """Write a data set of large images, each a grid of images of the demo."""
    config = load_data_config("data_configs/demo.yaml")
    raw = {"CLASSES": list(config.classes), "NC": len(config.classes)}
    for split in ("train", "valid"):
        folders = {kind: demo / split / kind for kind in ("images", "labels")}
        raw |= {f"{split.upper()}_DIR_{kind.upper()}": str(folder) for kind, folder in folders.items()}
    path = output / "data.yaml"
    output.mkdir(parents=True)
    path.write_text(yaml.safe_dump(raw))
    small = {split: open_index(load_data_config(path), split, "pascal_voc") for split in ("train", "valid")}
    for split, index in small.items():
        images, labels = output / split / "images", output / split / "labels"
        for folder in (images, labels):
            folder.mkdir(parents=True)
        for number in range(len(index) // _SIDE**2):
            picture, boxes, names = _joined(index, range(number * _SIDE**2, (number + 1) * _SIDE**2))
            write_image(images / f"{number:03d}.png", picture)
            write_voc(labels / f"{number:03d}.xml", f"{number:03d}.png", picture.shape[:2], boxes, names)
        raw |= {f"{split.upper()}_DIR_IMAGES": str(images), f"{split.upper()}_DIR_LABELS": str(labels)}
    path.write_text(yaml.safe_dump(raw))


def _joined(index: LabelIndex, numbers: range) -> tuple[np.ndarray, np.ndarray, list[str]]:
    pictures = [index.pixels(i) for i in numbers]
    height, width = pictures[0].shape[:2]
    rows = [np.concatenate(pictures[k : k + _SIDE], 1) for k in range(0, _SIDE**2, _SIDE)]
    boxes = [
        index.boxes[index.rows(i)] + np.array([k % _SIDE * width, k // _SIDE * height] * 2)
        for k, i in enumerate(numbers)
    ]
    names = [index.classes[label] for i in numbers for label in index.labels[index.rows(i)]]
    return np.concatenate(rows), np.concatenate(boxes), names


def compare_times(index: LabelIndex, detector: Detector, rounds: int, count: int) -> None:
    """Detect in the same images in turns; print median times and numbers of boxes."""
    set_postprocess_backend("numpy")
    pictures = [index.pixels(i) for i in range(min(count, len(index)))]
    names = {str(k): name for k, name in enumerate(detector.info.class_names)}
    transform = detector.model.transform
    rule = detector.info.size_rule
    transform.min_size, transform.max_size = (rule.size,), max(rule.max_size, rule.size)
    torchvision_model = TorchVisionDetectionModel(
        model=detector.model, confidence_threshold=THRESHOLD, category_mapping=names, device=detector.info.device
    )
    ways: dict[str, Callable[[np.ndarray], int]] = {
        "SAHI, its torchvision model": partial(_sahi, torchvision_model),
        "SAHI, our detector": partial(_sahi, SahiModel(detector, confidence_threshold=THRESHOLD)),
        "ours, one slice at a time": partial(_ours, SlicedDetector(detector, SLICES, threshold=THRESHOLD, batch=1)),
        "ours, 8 slices": partial(_ours, SlicedDetector(detector, SLICES, threshold=THRESHOLD, batch=8)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            counts[name] = sum(map(way, pictures))
            if turn:  # the first one warms up
                seconds[name].append((time.perf_counter() - started) / len(pictures))
    first = median(seconds["SAHI, its torchvision model"])
    for name, values in seconds.items():
        print(f"{name:30} {median(values):.3f} s a picture, ratio {first / median(values):.2f}, {counts[name]} boxes")


def _sahi(model: SahiModel | TorchVisionDetectionModel, picture: np.ndarray) -> int:
    result = get_sliced_prediction(
        picture, model, slice_height=SLICES.height, slice_width=SLICES.width, verbose=0,
        overlap_height_ratio=SLICES.overlap_height, overlap_width_ratio=SLICES.overlap_width,
    )  # fmt: skip
    return len(result.object_prediction_list)


def _ours(detector: Detector, picture: np.ndarray) -> int:
    return len(detector(picture))


def compare_merging(boxes: int) -> None:
    """Compare merging alone on random boxes; SAHI's time excludes the creation of its objects."""
    set_postprocess_backend("numpy")
    rng = np.random.default_rng(0)
    corners = rng.random((boxes, 2)) * 50 * boxes**0.5
    all_boxes = np.concatenate([corners, corners + rng.random((boxes, 2)) * 60], 1)
    scores, labels = rng.random(boxes).astype(np.float32), rng.integers(1, 4, boxes)
    for kind in POSTPROCESS_TYPES:
        predictions = [
            ObjectPrediction(bbox=box, category_id=label, score=score)
            for box, label, score in zip(all_boxes.tolist(), labels.tolist(), scores, strict=True)
        ]
        started = time.perf_counter()
        theirs = POSTPROCESS_NAME_TO_CLASS[kind](0.5, "IOS", False)(predictions)
        between = time.perf_counter()
        ours = merge(all_boxes, scores, labels, Merging(kind))
        ended = time.perf_counter()
        milliseconds, other = (ended - between) * 1e3, (between - started) * 1e3
        print(
            f"{kind:10} SAHI {other:.1f} ms, ours {milliseconds:.1f} ms, ratio {other / milliseconds:.1f}; "
            f"{len(theirs)} and {len(ours)} of {boxes} boxes are left"
        )


def compare_findings(index: LabelIndex, load: Callable[[int | None], Detector]) -> None:
    """Print COCO metrics and seconds for whole images, at the training size and enlarged, and for slices."""
    default = load(None)
    sides = sorted({default.info.size_rule.size * factor for factor in (1, 2, _SIDE)})
    ways = {f"whole at {side} px": load(side) for side in sides} | {"slices": SlicedDetector(default, SLICES)}
    for name, detector in ways.items():
        started = time.perf_counter()
        detections: dict[int, Detections] = {i: detector(index.pixels(i), threshold=0.05) for i in range(len(index))}
        seconds = (time.perf_counter() - started) / len(index)
        stats = coco_metrics(index, detections).stats
        print(
            f"{name:20} mAP {stats[0]:.3f}, AP50 {stats[1]:.3f}, AR of 100 {stats[8]:.3f}; small: AP {stats[3]:.3f}, "
            f"AR {stats[9]:.3f}; {seconds:.2f} s a picture"
        )


def main() -> None:
    """Write the data set, or print a table."""
    parser = argparse.ArgumentParser(description="Detection in slices: time and findings.")
    parser.add_argument("task", choices=("data", "time", "merge", "find"))
    parser.add_argument("--demo", type=Path, default=Path("data/demo"), help="folder of the demo's pictures")
    parser.add_argument("--output", type=Path, default=Path("large"))
    parser.add_argument("--data")
    parser.add_argument("--weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=4)
    options = parser.parse_args()
    if options.task == "data":
        return write_large_pictures(options.demo, options.output)
    if options.task == "merge":
        return compare_merging(boxes=3000)
    torch.manual_seed(0)
    index = open_index(load_data_config(options.data), "valid", "pascal_voc")
    load = partial(load_detector, options.weights, device=options.device)
    if options.task == "time":
        compare_times(index, load(), options.rounds, options.pictures)
    else:
        compare_findings(index, lambda side: load(imgsz=side))
    return None


if __name__ == "__main__":
    main()
