"""Operators, waits and copies of a step, ours as on a GPU and torchvision's, one image and more: a Markdown table.

python -m benchmarks.operators

Nothing is measured in time, and no GPU is needed: ours runs on a device without data (meta), where an operator that
needs to know them fails; torchvision's, which has such operators, runs on the CPU.
"""

import argparse
import contextlib
from unittest import mock

import torch
from torch import nn

from benchmarks.common.op_counter import OpCounter
from benchmarks.detector import CLASSES, batch_of
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn import roi_heads
from models.rcnn.reference import as_torchvision

CPU, META = torch.device("cpu"), torch.device("meta")
MODELS = ("fasterrcnn_mini_darknet_nano_head", "fasterrcnn_mobilenetv3_large_320_fpn")
BATCHES = (1, 4, 16)
SIDE = 320  # px


def of_ours(name: str, images: int, *, train: bool) -> OpCounter:
    """Of the second step, as the first computes the anchors; detection up to its block of boxes on the device."""
    model = create_model[name](CLASSES, pretrained=False, options=RANDOM).to(META)
    no_autocast = mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext())
    with no_autocast, mock.patch.object(roi_heads, "unpad_detections", _nothing):  # meta has neither
        counted(model, images, META, train=train)
        return counted(model, images, META, train=train)


def of_torchvision(name: str, images: int, *, train: bool) -> OpCounter:
    """Of a step on the CPU."""
    model = as_torchvision(create_model[name](CLASSES, pretrained=False, options=RANDOM))
    return counted(model, images, CPU, train=train)


def counted(model: nn.Module, images: int, device: torch.device, *, train: bool) -> OpCounter:
    """Of losses and gradients, or of detection."""
    batch = batch_of(images, SIDE, SIDE, pin=False).to(device)
    model.train(train).zero_grad(set_to_none=True)
    with OpCounter(device) as counter, torch.set_grad_enabled(train):
        found = model(batch)
        if train:
            sum(found.values()).backward()
    return counter


def _nothing(block: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)} for _ in block]


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description="Operators, waits and copies of a step, without a GPU.")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    print(f"Batches of {', '.join(map(str, BATCHES))} images of {SIDE} px\n")
    print(
        "| model | work | operators, stock | ours | waits, stock | ours | copies, ours |\n|---|---|---|---|---|---|---|"
    )
    for name in options.models:
        for train in (True, False):
            stock, ours = ([of(name, n, train=train) for n in BATCHES] for of in (of_torchvision, of_ours))
            cells = [" ".join(str(c.operators.total()) for c in way) for way in (stock, ours)]
            cells += [" ".join(str(c.syncs.total()) for c in way) for way in (stock, ours)]
            cells.append(" ".join(str(c.copies) for c in ours))
            print(f"| {name} | {'train' if train else 'detect'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
