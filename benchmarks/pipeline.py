"""Compare stock and ours from JPEG files to the optimizer step, and from a video file to boxes, in turns.

python -m benchmarks.pipeline --data bccd.yaml --video example_test_data/video_1.mp4        a GPU if there is one
OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.pipeline --data bccd.yaml               on a CPU, training alone

Stock is the predecessor, rebuilt from a description: float samples in torch's DataLoader, whose workers restart in each
pass, images copied to the device one by one, torchvision's modules; detection frame by frame. Ours are the loader, the
training loop and the video pipeline of the scripts; nothing is drawn or written. Both use the same images at the same
square size and the same random weights, which the small learning rate hardly changes.
"""

import argparse
import copy
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.common.serial import decoded, detect_one, detected
from benchmarks.common.table import DTYPES, Cell, fill_in, heading, interleaved, print_rows, seconds_of
from benchmarks.detector import CLASSES, unsure_model
from benchmarks.video import long_video, report_of
from datasets import DetectionDataset, TrainBatchSampler, make_loader
from models.rcnn.cuda_graphs import GraphedDetector
from models.rcnn.detector import FasterRCNN
from models.rcnn.reference import as_torchvision
from torch_utils.distributed import Processes
from torch_utils.engine import train_one_epoch
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.optimization import Schedule, make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.update import Updater
from utils.augment.policy import AugmentationPolicy
from utils.detect.detections import Detections
from utils.detect.detector import DetectorInfo
from utils.detect.torch_detector import TorchDetector
from utils.labels.data_config import DataConfig, load_data_config
from utils.labels.index import open_index
from utils.loading.batch import Batch
from utils.loading.size_rule import SizeRule
from utils.machine import cores, keep_freed_memory
from utils.video.pipeline import VideoPipeline
from utils.video.sources import open_video

MAX_WAITING = 0.05  # share of our time, the goal of issue 7
LR = 1e-6
GPU = {
    "rows": (("fasterrcnn_mini_darknet_nano_head", "fp32"), ("fasterrcnn_resnet50_fpn", "bf16")),
    "size": 544, "batch": 16, "images": 2048, "seconds": 540,  # about as many px as 640 x 480
}  # fmt: skip
CPU = {
    "rows": (("fasterrcnn_mini_darknet_nano_head", "fp32"),),
    "size": 320, "batch": 4, "images": 32, "seconds": 240,
}  # fmt: skip
HEADER = (
    "| model | size | batch | precision | work | stock img/s | ours img/s | ratio | ours waits |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


class Workload(Protocol):
    """Work that stock and ours do in turns."""

    images: int  # or frames, of a pass; known after the first
    data_wait_seconds: float  # of ours, so far

    def stock(self) -> None:
        """Run a pass of stock."""

    def ours(self) -> None:
        """Run a pass of ours."""

    def close(self) -> None:
        """Stop worker processes."""


class Training:
    """Epochs on the training images of a data set with Pascal VOC labels.

    Args:
        model: on its device, for ours; stock trains a copy. It must not resize images of `size`.
        size: images are resized to size x size.
        images: images of an epoch, repeated if there are fewer; None for all once.
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: DataConfig,
        *,
        size: int,
        batch: int,
        workers: int,
        precision: Precision,
        lr: float,
        images: int | None = None,
    ) -> None:
        from benchmarks.common.predecessor import (  # needs albumentations
            FloatDataset,
            float_epoch,
            float_loader,
        )

        index = open_index(config, "train", "pascal_voc")
        self.images = images or len(index)
        count = min(self.images, len(index))
        floats = FloatDataset(config.splits["train"], config.classes, size)
        floats.images = index.files[:count]
        float_batches = float_loader(floats, batch, workers, images=self.images)
        self.stock_model = as_torchvision(copy.deepcopy(model))
        optimizer = torch.optim.SGD(self.stock_model.parameters(), lr=lr, momentum=0.9, nesterov=True)
        self._stock_epoch = partial(float_epoch, self.stock_model, optimizer, float_batches, precision)

        self.model = model.to_device(precision.device)  # as train.py
        dataset = DetectionDataset(index, SizeRule(size, square=True), policy=AugmentationPolicy(flip=0.5))
        self._batches = TrainBatchSampler(count, batch, seed=0, repeat=np.full(count, self.images / count))
        self._loader = make_loader(dataset, self._batches, workers, precision.device)
        optimizer, schedule = make_optimizer(model, "SGD", lr), Schedule(lr, len(self._loader), 20)
        processes = Processes(precision.device)
        self._updater = Updater(model, optimizer, schedule, precision, processes)
        self._guard = NonFiniteGuard(index, processes, limit=0, hint="")

    @property
    def data_wait_seconds(self) -> float:
        """See Workload."""
        return self._loader.data_wait_seconds

    def stock(self) -> None:
        """See Workload."""
        self._stock_epoch()

    def ours(self) -> None:
        """See Workload."""
        train_one_epoch(self.model, self._updater, self._loader, self._batches.epoch, guard=self._guard)
        self._batches.set_epoch(self._batches.epoch + 1)

    def close(self) -> None:
        """See Workload."""
        self._loader.close()


class VideoDetection:
    """Passes over a video, up to boxes in host memory.

    Args:
        model: on its device, used by both. It must not resize images of `size`.
        size: frames are resized to size x size.
    """

    def __init__(self, model: FasterRCNN, video: Path, *, size: int, batch: int, precision: Precision) -> None:
        self._video, self._batch, self._rule = video, batch, SizeRule(size, square=True)
        self.images, self.data_wait_seconds = 0, 0.0
        self._detect_one = partial(detect_one, model=as_torchvision(model.eval()), precision=precision)
        names = ("__background__", *(f"class {k}" for k in range(1, CLASSES)))
        info = DetectorInfo("random", names, self._rule, str(precision.device), source="none")
        model.to_device(precision.device)
        graphs = GraphedDetector(model) if precision.device.type == "cuda" else None  # as load_detector

        def detect(batch: Batch) -> list[dict[str, Tensor]]:
            with precision.autocast():  # autocast is per thread
                return graphs(batch) if graphs else model(batch.to(precision.device))

        self._detector = TorchDetector(model, info, precision.device, detect=detect)

    def stock(self) -> None:
        """See Workload."""
        for _ in detected(decoded(cv2.VideoCapture(str(self._video))), self._detect_one, self._rule):
            pass

    def ours(self) -> None:
        """See Workload."""
        sink = NullSink()
        report = report_of(VideoPipeline(open_video(str(self._video)), self._detector, sink, sink, batch=self._batch))
        self.images = report.frames
        self.data_wait_seconds += report.stages["detect"].starved

    def close(self) -> None:
        """See Workload."""


class NullSink:
    """Annotator and writer that do nothing."""

    path, words = Path(), "nothing"

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """See Annotator."""
        del number, detections
        return frame

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """See VideoWriter."""

    def close(self) -> None:
        """See VideoWriter."""


def make_workload(
    cell: Cell, options: argparse.Namespace, config: DataConfig | None, clip: Path, device: torch.device
) -> Workload:
    """Make the work of a row."""
    torch.manual_seed(0)
    classes = len(config.classes) if cell.work == "train" else CLASSES
    model = unsure_model(cell.model, classes, min_size=options.size, max_size=options.size).to(device)
    shared = {"size": options.size, "batch": cell.batch, "precision": Precision(device, DTYPES[cell.precision])}
    if cell.work == "detect":
        return VideoDetection(model, clip, **shared)
    return Training(model, config, workers=options.workers, lr=LR, images=options.images, **shared)


def row_of(cell: Cell, seconds: float, *, make: Callable[[Cell], Workload], device: torch.device) -> str:
    """Measure a row and format it; the first pass of each is not counted."""
    with closing(make(cell)) as workload:
        steps = {"stock": workload.stock, "ours": workload.ours}
        for step in steps.values():
            seconds_of(step, device)
        before = workload.data_wait_seconds
        times = interleaved(steps, device, seconds)
        waiting = (workload.data_wait_seconds - before) / sum(times["ours"])
    stock, ours = (workload.images / median(several) for several in times.values())
    mark = "**" if waiting > MAX_WAITING else ""
    return f"{cell} | {stock:.1f} | {ours:.1f} | {ours / stock:.2f} | {mark}{100 * waiting:.1f} %{mark} |"


def cells_of(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the rows of every model."""
    for model, precision in options.rows:
        for work, wanted in (("train", options.data), ("detect", options.video)):
            if wanted:
                yield Cell(model, f"{options.size}x{options.size}", options.batch, precision, work)


def parse() -> argparse.Namespace:
    """Parse the options; defaults depend on the device."""
    parser = argparse.ArgumentParser(description="From files to steps and boxes: stock and ours, in turns.")
    parser.add_argument("--data", help="a data set with Pascal VOC labels, to train on")
    parser.add_argument("--video", help="a file to detect in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), help="fp32 where --models are given")
    parser.add_argument("--size", type=int, help="height and width of the network input, px")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int, default=cores(), help="processes that load images, at most one a core")
    parser.add_argument("--images", type=int, help="images, or frames, of a pass")
    parser.add_argument("--seconds", type=float, help="approximate total time; remaining rows are skipped")
    options = parser.parse_args()
    if not (options.data or options.video):
        parser.error("nothing to measure: give --data, --video or both")
    defaults = CPU if options.device == "cpu" else GPU
    if options.models or options.precision:
        models = options.models or [model for model, _ in defaults["rows"]]
        options.rows = tuple(product(models, options.precision or ("fp32",)))
    else:
        options.rows = defaults["rows"]
    fill_in(options, defaults)
    options.workers = min(options.workers, cores())
    return options


def main() -> None:
    """Print the table row by row."""
    options, started = parse(), time.perf_counter()
    device = torch.device(options.device)
    logging.basicConfig(level=logging.WARNING)
    cv2.setNumThreads(0)  # as in the workers of our loader: one thread for both
    if device.type == "cpu":
        keep_freed_memory()  # as train.py
    print(heading(device))
    print(
        f"{options.images} images or frames a pass, {options.workers} worker(s); the last column is the share "
        f"of our time spent waiting for images or frames: **above {100 * MAX_WAITING:.0f} %** is too much."
    )
    for name, work in (("data", "training"), ("video", "detection")):
        if getattr(options, name) is None:
            print(f"Without --{name} {work} is not measured.")
    config = load_data_config(options.data) if options.data else None
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        if options.video:
            long_video(Path(options.video), clip, options.images)
        print(f"\n{HEADER}")
        make = partial(make_workload, options=options, config=config, clip=clip, device=device)
        rows = partial(row_of, make=make, device=device)
        print_rows(list(cells_of(options)), rows, device, end=started + options.seconds)


if __name__ == "__main__":
    main()
