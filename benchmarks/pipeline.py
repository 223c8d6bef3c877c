"""From JPEG files to the optimizer's step, and from a video file to boxes: stock and ours in one process, in turns.

python -m benchmarks.pipeline --data bccd.yaml --video example_test_data/video_1.mp4        a GPU if there is one
OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.pipeline --data bccd.yaml               on a CPU, training alone

Stock is the predecessor's way, rebuilt from a description: float samples in torch's DataLoader, whose workers start new
in each pass, images to the device one by one, torchvision's own modules; detection frame by frame. Ours are the loader,
the training loop and the video pipeline of the scripts; nothing is drawn nor written. Both see the same images at the
same square size, with the same random weights, which the learning rate leaves about as they are.
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

MOST_WAITING = 0.05  # of our time; issue 7's
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


class Both(Protocol):
    """The same work by both ways."""

    images: int  # or frames, of a pass; known after the first
    waited: float  # s that ours has waited for data so far

    def stock(self) -> None:
        """A pass."""

    def ours(self) -> None:
        """A pass."""

    def close(self) -> None:
        """End what runs beside it."""


class Training:
    """Epochs on the training images of a data set with Pascal VOC labels.

    Args:
        model: on its device, for ours; stock trains a copy. Lists of images of `size` must keep their size in it.
        size: images become size x size.
        images: shown in an epoch: the first so many, or all, again and again; without it all once.
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
        from benchmarks.common.predecessor import (  # they alone need albumentations
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
        self._watch = NonFiniteGuard(index, processes, limit=0, hint="")

    @property
    def waited(self) -> float:
        """See Both."""
        return self._loader.data_wait_seconds

    def stock(self) -> None:
        """See Both."""
        self._stock_epoch()

    def ours(self) -> None:
        """See Both."""
        train_one_epoch(self.model, self._updater, self._loader, self._batches.epoch, watch=self._watch)
        self._batches.go_to(self._batches.epoch + 1)

    def close(self) -> None:
        """See Both."""
        self._loader.close()


class Watching:
    """Passes over a video, up to boxes in the host's memory.

    Args:
        model: on its device; both use it. Lists of images of `size` must keep their size in it.
        size: frames become size x size.
    """

    def __init__(self, model: FasterRCNN, video: Path, *, size: int, batch: int, precision: Precision) -> None:
        self._video, self._batch, self._rule = video, batch, SizeRule(size, square=True)
        self.images, self.waited = 0, 0.0
        self._detect_one = partial(detect_one, model=as_torchvision(model.eval()), precision=precision)
        names = ("__background__", *(f"class {k}" for k in range(1, CLASSES)))
        info = DetectorInfo("random", names, self._rule, str(precision.device), source="none")
        model.to_device(precision.device)
        graphs = GraphedDetector(model) if precision.device.type == "cuda" else None  # as load_detector

        def detect(batch: Batch) -> list[dict[str, Tensor]]:
            with precision.autocast():  # of the thread that asks
                return graphs(batch) if graphs else model(batch.to(precision.device))

        self._detector = TorchDetector(model, info, precision.device, detect=detect)

    def stock(self) -> None:
        """See Both."""
        for _ in detected(decoded(cv2.VideoCapture(str(self._video))), self._detect_one, self._rule):
            pass

    def ours(self) -> None:
        """See Both."""
        end = Nowhere()
        report = report_of(VideoPipeline(open_video(str(self._video)), self._detector, end, end, batch=self._batch))
        self.images = report.frames
        self.waited += report.stages["detect"].starved

    def close(self) -> None:
        """See Both."""


class Nowhere:
    """Annotator and writer that do nothing."""

    path, words = Path(), "nothing"

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """See Annotator."""
        del number, detections
        return frame

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """See VideoWriter."""

    def close(self) -> None:
        """See both."""


def both_of(
    cell: Cell, options: argparse.Namespace, config: DataConfig | None, clip: Path, device: torch.device
) -> Both:
    """What a row compares."""
    torch.manual_seed(0)
    classes = len(config.classes) if cell.work == "train" else CLASSES
    model = unsure_model(cell.model, classes, min_size=options.size, max_size=options.size).to(device)
    shared = {"size": options.size, "batch": cell.batch, "precision": Precision(device, DTYPES[cell.precision])}
    if cell.work == "detect":
        return Watching(model, clip, **shared)
    return Training(model, config, workers=options.workers, lr=LR, images=options.images, **shared)


def row_of(cell: Cell, seconds: float, *, make: Callable[[Cell], Both], device: torch.device) -> str:
    """The cell's line of the table; a pass of each way is not counted."""
    with closing(make(cell)) as both:
        steps = {"stock": both.stock, "ours": both.ours}
        for step in steps.values():
            seconds_of(step, device)
        before = both.waited
        times = interleaved(steps, device, seconds)
        waiting = (both.waited - before) / sum(times["ours"])
    stock, ours = (both.images / median(several) for several in times.values())
    mark = "**" if waiting > MOST_WAITING else ""
    return f"{cell} | {stock:.1f} | {ours:.1f} | {ours / stock:.2f} | {mark}{100 * waiting:.1f} %{mark} |"


def cells_of(options: argparse.Namespace) -> Iterator[Cell]:
    """Every model's work."""
    for model, precision in options.rows:
        for work, wanted in (("train", options.data), ("detect", options.video)):
            if wanted:
                yield Cell(model, f"{options.size}x{options.size}", options.batch, precision, work)


def parse() -> argparse.Namespace:
    """Options; what is measured by default depends on the device."""
    parser = argparse.ArgumentParser(description="From files to steps and boxes: stock and ours, in turns.")
    parser.add_argument("--data", help="a data set with Pascal VOC labels, to train on")
    parser.add_argument("--video", help="a file to detect in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), help="fp32 where --models are given")
    parser.add_argument("--size", type=int, help="px, height and width of what the network sees")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int, default=cores(), help="processes that load images, at most one a core")
    parser.add_argument("--images", type=int, help="images, or frames, of a pass")
    parser.add_argument("--seconds", type=float, help="of all of it, about; what there is no time for is left out")
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
    """The table, row by row."""
    options, started = parse(), time.perf_counter()
    device = torch.device(options.device)
    logging.basicConfig(level=logging.WARNING)
    cv2.setNumThreads(0)  # as in the workers of our loader: both ways have one thread of each of theirs
    if device.type == "cpu":
        keep_freed_memory()  # as train.py
    print(heading(device))
    print(
        f"{options.images} images or frames a pass, {options.workers} worker(s); of our time, the share in which it "
        f"waits for images or frames: **above {100 * MOST_WAITING:.0f} %** is too much."
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
        make = partial(both_of, options=options, config=config, clip=clip, device=device)
        rows = partial(row_of, make=make, device=device)
        print_rows(list(cells_of(options)), rows, device, end=started + options.seconds)


if __name__ == "__main__":
    main()
