"""Count operators, waits and copies of a step, ours as on a GPU against torchvision's, as a Markdown table.

python -m benchmarks.operators

No time is measured and no GPU is needed: ours runs on the meta device, where operators that depend on data fail;
torchvision's has such operators, so it runs on the CPU.
"""

import argparse
import contextlib
from unittest import mock

import torch
from torch import nn

from benchmarks.common.op_counter import OpCounter
from benchmarks.detector import CLASSES, noise_batch
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn import roi_heads
from models.rcnn.reference import as_torchvision

CPU, META = torch.device("cpu"), torch.device("meta")
MODELS = ("fasterrcnn_mini_darknet_nano_head", "fasterrcnn_mobilenetv3_large_320_fpn")
BATCHES = (1, 4, 16)
SIDE = 320  # px


def count_ours(name: str, images: int, *, train: bool) -> OpCounter:
    """Count our second step, as the first computes the anchors; detection ends with its boxes on the device."""
    model = create_model[name](CLASSES, pretrained=False, options=RANDOM).to(META)
    no_autocast = mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext())
    with no_autocast, mock.patch.object(roi_heads, "unpad_detections", _nothing):  # meta supports neither
        count_step(model, images, META, train=train)
        return count_step(model, images, META, train=train)


def count_torchvision(name: str, images: int, *, train: bool) -> OpCounter:
    """Count torchvision's step on the CPU."""
    model = as_torchvision(create_model[name](CLASSES, pretrained=False, options=RANDOM))
    return count_step(model, images, CPU, train=train)


def count_step(model: nn.Module, images: int, device: torch.device, *, train: bool) -> OpCounter:
    """Count a training step without the update, or a detection."""
    batch = noise_batch(images, SIDE, SIDE, pin=False).to(device)
    model.train(train).zero_grad(set_to_none=True)
    with OpCounter(device) as counter, torch.set_grad_enabled(train):
        output = model(batch)
        if train:
            sum(output.values()).backward()
    return counter


def _nothing(block: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)} for _ in block]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Operators, waits and copies of a step, without a GPU.")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    print(f"Batches of {', '.join(map(str, BATCHES))} images of {SIDE} px\n")
    print(
        "| model | work | operators, stock | ours | waits, stock | ours | copies, ours |\n|---|---|---|---|---|---|---|"
    )
    for name in options.models:
        for train in (True, False):
            stock, ours = ([of(name, n, train=train) for n in BATCHES] for of in (count_torchvision, count_ours))
            cells = [" ".join(str(c.operators.total()) for c in way) for way in (stock, ours)]
            cells += [" ".join(str(c.syncs.total()) for c in way) for way in (stock, ours)]
            cells.append(" ".join(str(c.copies) for c in ours))
            print(f"| {name} | {'train' if train else 'detect'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
