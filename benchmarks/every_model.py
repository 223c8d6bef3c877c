"""Run a training step and a detection with every model, and print their times.

Models have 21 classes; the batch has an image with boxes and one without.

python -m benchmarks.every_model --imgsz 320
"""

import argparse
import gc
import resource
import time
from itertools import pairwise

import numpy as np
import torch

from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample

CLASSES = 21
_NONE = np.empty((0, 4), np.float32), np.empty(0, np.int32)


def main() -> None:
    """Build, train and run every model, or the given ones."""
    parser = argparse.ArgumentParser(description="A training step and a detection with every model.")
    parser.add_argument("names", nargs="*", help="models; default: all")
    parser.add_argument("--imgsz", type=int, default=320)
    options = parser.parse_args()
    batch = two_images(options.imgsz)
    started = time.perf_counter()
    for name in options.names or create_model:
        torch.manual_seed(0)
        times = [time.perf_counter()]
        model = create_model[name](CLASSES, pretrained=False, options=RANDOM)
        times.append(time.perf_counter())
        losses = model.train()(batch)
        sum(losses.values()).backward()
        untrained = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        times.append(time.perf_counter())
        with torch.inference_mode():
            detections = model.eval()(batch)
        times.append(time.perf_counter())
        good = all(loss.isfinite() for loss in losses.values()) and not untrained and len(detections) == 2
        build, train, use = (later - earlier for earlier, later in pairwise(times))
        print(
            f"{name:45} {'good' if good else 'BAD '}  build {build:5.1f}  train {train:5.1f}  use {use:5.1f} s",
            flush=True,
        )
        del model, losses, detections
        gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"all: {time.perf_counter() - started:.0f} s, peak {peak:.1f} GiB")


def two_images(side: int) -> Batch:
    """Make a batch of noise images, side x side px: the first with three boxes, the second with none."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, side / 2, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(side / 8, side / 2, (3, 2))], 1).astype(np.float32)
    labels = rng.integers(1, CLASSES, 3).astype(np.int32)
    images = rng.integers(0, 256, (2, side, side, 3), np.uint8)
    return collate(
        [
            Sample(image, (side, side), i, *target)
            for i, (image, target) in enumerate(zip(images, ((boxes, labels), _NONE), strict=True))
        ]
    )


if __name__ == "__main__":
    main()
