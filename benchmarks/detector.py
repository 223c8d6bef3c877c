"""Compare torchvision's detector with ours around the same layers, in turns in one process, as a Markdown table.

python -m benchmarks.detector                                       a GPU if there is one: about nine minutes
OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.detector        on a CPU: two models, small images
python -m benchmarks.detector --models fasterrcnn_nano --sizes 240x240 --batches 4 --work train

Both process the same pixels, starting from uint8 in host memory. A training step ends with the optimizer step,
detection with boxes in host memory; "graphs" is detection with our steps recorded as CUDA graphs. Weights are random,
with a classifier that is unsure of most proposals.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.op_counter import OpCounter
from benchmarks.common.table import DTYPES, Cell, Step, fill_in, heading, interleaved, print_rows, seconds_of
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn.cuda_graphs import GraphedDetector
from models.rcnn.detector import FasterRCNN
from models.rcnn.reference import as_torchvision
from utils.loading.batch import Batch

CLASSES, OBJECTS = 5, 6  # with the background; boxes an image
GPU = {
    "models": (
        "fasterrcnn_mini_darknet_nano_head", "fasterrcnn_mobilenetv3_large_320_fpn", "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_vitdet",
    ),
    "sizes": ("320x320", "480x640", "800x1333"), "batches": (1, 4, 16), "precision": ("fp32", "bf16"),
    "work": ("train", "detect", "graphs"), "seconds": 540,
}  # fmt: skip
CPU = {
    "models": ("fasterrcnn_mini_darknet_nano_head", "fasterrcnn_mobilenetv3_large_320_fpn"),
    "sizes": ("320x320",), "batches": (1, 4), "precision": ("fp32",), "work": ("train", "detect"), "seconds": 240,
}  # fmt: skip
TARGETS = (  # those of docs/performance.md, measured first
    ("fasterrcnn_mini_darknet_nano_head", "480x640", 16, "fp32"),
    ("fasterrcnn_mini_darknet_nano_head", "480x640", 1, "fp32"),
    ("fasterrcnn_resnet50_fpn", "800x1333", 8, "bf16"),
)
HEADER = (
    "| model | size | batch | precision | work | stock img/s | ours img/s | ratio | operators | syncs | copies | "
    "peak GiB | of the peak |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


class DetectorCell(Cell):
    """A row: a training step or a detection of stock and ours."""

    def steps(self, device: torch.device) -> dict[str, Step]:
        """Steps of stock and ours, each with its own model."""
        torch.manual_seed(0)
        batch = noise_batch(self.batch, *map(int, self.size.split("x")), pin=device.type == "cuda")
        ours = unsure_model(self.model, CLASSES)
        ours = ours.to(device, memory_format=torch.channels_last).train(self.work == "train")
        autocast = torch.autocast(device.type, DTYPES[self.precision], enabled=self.precision != "fp32")
        stock = as_torchvision(ours)
        if self.work == "train":
            fused = True if device.type == "cuda" else None  # as train.py has it
            return {"stock": training(stock, batch, autocast), "ours": training(ours, batch, autocast, fused=fused)}
        detect = GraphedDetector(ours) if self.work == "graphs" else lambda block: ours(block.to(device))
        return {
            "stock": detection(lambda block: stock(block.to(device)), batch, autocast),
            "ours": detection(detect, batch, autocast),
        }


def unsure_model(name: str, classes: int, **torchvision_options: Any) -> FasterRCNN:
    """Build a model with random weights and a classifier that is unsure of most proposals."""
    model = create_model[name](classes, pretrained=False, options=RANDOM, **torchvision_options)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = 2.0
        model.roi_heads.box_predictor.cls_score.weight.mul_(4)
    return model


def noise_batch(count: int, height: int, width: int, *, pin: bool) -> Batch:
    """Make a batch of noise images with random boxes."""
    low = torch.rand(count * OBJECTS, 2) * 0.7
    corners = torch.cat([low, low + 0.05 + torch.rand(count * OBJECTS, 2) * 0.25], 1)
    size = torch.tensor([height, width])
    block = (-(-size // 32) * 32).tolist()
    batch = Batch(
        images=torch.randint(0, 256, (count, *block, 3), dtype=torch.uint8), sizes=size.repeat(count, 1),
        original_sizes=size.repeat(count, 1), image_ids=torch.arange(count), boxes=corners * size.flip(0).repeat(2),
        labels=torch.randint(1, CLASSES, (count * OBJECTS,)), counts=torch.full((count,), OBJECTS),
    )  # fmt: skip
    return batch.pin_memory() if pin else batch


def training(model: nn.Module, batch: Batch, autocast: torch.autocast, *, fused: bool | None = None) -> Step:
    """Training step: copy, losses, gradients, update; `fused` is the argument of torch's optimizer."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, fused=fused)

    def step() -> None:
        with autocast:
            loss = sum(model(batch.to(device)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def detection(detect: Callable[[Batch], list[dict[str, torch.Tensor]]], batch: Batch, autocast: torch.autocast) -> Step:
    """Detection step, from pixels to boxes in host memory."""

    @torch.inference_mode()
    def step() -> list[dict[str, torch.Tensor]]:
        with autocast:
            outputs = detect(batch)
        return [{key: value.cpu() for key, value in each.items()} for each in outputs]

    return step


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of the best of ten products of square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds_of(lambda: one @ other, device) for _ in range(10))
    return 2 * side**3 / best


def row_of(cell: DetectorCell, seconds: float, *, device: torch.device, peaks: dict[str, float]) -> str:
    """Measure a row and format it; `peaks` are operations per second by precision."""
    steps = cell.steps(device)
    for step in steps.values():  # warm-up: kernel selection, anchors, CUDA graphs
        step(), step(), step()
    memory, counters = {}, {way: OpCounter(device) for way in steps}
    for way, step in steps.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with counters[way]:
            step()
        memory[way] = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
    with FlopCounterMode(display=False) as flops:
        steps["stock"]()  # operations the network needs: ours also computes padding, and a graph hides its operators
    times = {way: median(several) for way, several in interleaved(steps, device, seconds).items()}
    rates = {way: cell.batch / each for way, each in times.items()}
    one, other = counters.values()
    copies = "-" if device.type == "cpu" else f"{one.copies} / {other.copies}"
    return (
        f"{cell} | {rates['stock']:.1f} | {rates['ours']:.1f} | {rates['ours'] / rates['stock']:.2f} "
        f"| {one.operators.total()} / {other.operators.total()} | {one.syncs.total()} / {other.syncs.total()} "
        f"| {copies} | {memory['stock']:.2f} / {memory['ours']:.2f} "
        f"| {100 * flops.get_total_flops() / times['ours'] / peaks[cell.precision]:.0f} % |"
    )


def cells_of(options: argparse.Namespace) -> Iterator[DetectorCell]:
    """Yield the rows: targets first, unless models are given; then all combinations."""
    rows = list(product(options.models, options.sizes, options.batches, options.precision))
    targets = TARGETS if options.targets else ()
    for row in dict.fromkeys((*targets, *rows)):
        for work in options.work:
            yield DetectorCell(*row, work)


def parse() -> argparse.Namespace:
    """Parse the options; defaults depend on the device."""
    parser = argparse.ArgumentParser(description="Stock torchvision and ours in one process, in turns.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--sizes", nargs="+", help="height x width of images in px: 480x640")
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES))
    parser.add_argument("--work", nargs="+", choices=("train", "detect", "graphs"))
    parser.add_argument("--seconds", type=float, help="approximate total time; remaining rows are skipped")
    options = parser.parse_args()
    options.targets = options.device != "cpu" and options.models is None
    fill_in(options, CPU if options.device == "cpu" else GPU)
    return options


def main() -> None:
    """Print the table row by row."""
    options, end = parse(), time.perf_counter()
    device, end = torch.device(options.device), end + options.seconds
    print(heading(device))
    peaks = {name: peak_flops(device, DTYPES[name]) for name in DTYPES if device.type != "cpu" or name == "fp32"}
    peaks.setdefault("bf16", float("nan"))
    print("; ".join(f"{name}: {peak / 1e12:.2f} TFLOP/s of matrices" for name, peak in peaks.items()))
    print("Pairs are stock / ours; operators, syncs, copies of one step; the peak is that of ours.\n")
    print(HEADER)
    print_rows(list(cells_of(options)), partial(row_of, device=device, peaks=peaks), device, end=end)


if __name__ == "__main__":
    main()
