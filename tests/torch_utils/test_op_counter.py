"""What a detector asks of a GPU, counted on a device without data: an operator that needs them to go on fails there."""

import contextlib

import pytest
import torch

from models.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn import roi_heads
from models.rcnn.stock import as_torchvision
from tests.models.test_builder import batch_of
from torch_utils.op_counter import OpCounter

CPU, META = torch.device("cpu"), torch.device("meta")
SINGLE, PYRAMID = "fasterrcnn_mini_darknet_nano_head", "fasterrcnn_mobilenetv3_large_320_fpn"
SIZE = (320, 416)


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # meta has none


def counted(name: str, images: int, *, train: bool) -> OpCounter:
    """Of the second step: the first computes the anchors."""
    model = create_model[name](5, pretrained=False, options=RANDOM).to(META).train(train)
    batch = batch_of([i % 3 for i in range(images)], SIZE).to(META)
    for _ in range(2):
        with OpCounter(META) as counter, torch.set_grad_enabled(train):
            result = model(batch)
            if train:
                sum(result.values()).backward()
    return counter


def test_it_counts_operators_syncs_and_copies() -> None:
    x = torch.arange(6.0, requires_grad=True)
    with OpCounter(CPU) as counter:
        y = (x.view(2, 3) * 2).sum()
        y.backward()
        y.item()
        x.detach()[x.detach() > 2]
        torch.nonzero(x.detach())
    assert counter.operators["mul"] == 2, "forward and backward"
    assert counter.operators["view"] == 0
    assert counter.syncs == {"_local_scalar_dense": 1, "index": 1, "nonzero": 1}
    with OpCounter(META) as counter:
        torch.zeros(3).to(META) + 1
        torch.zeros(3).nonzero()  # of the host alone
    assert (counter.copies, counter.syncs, counter.operators["add"]) == (1, {}, 1)


@pytest.mark.parametrize("name", [SINGLE, PYRAMID])
def test_a_training_step_never_waits_and_does_not_grow_with_the_batch(name: str) -> None:
    one, many = (counted(name, images, train=True) for images in (1, 16))
    for counter in (one, many):
        assert counter.syncs == {}
        assert counter.copies <= 2
    assert many.operators.total() < 1.3 * one.operators.total()


@pytest.mark.parametrize("name", [SINGLE, PYRAMID])
def test_detection_waits_for_its_result_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    monkeypatch.setattr(roi_heads, "detections_of", lambda block: [dict(nothing) for _ in block])
    one, many = (counted(name, images, train=False) for images in (1, 16))
    for counter in (one, many):
        assert counter.syncs == {}
        assert counter.copies <= 2
    assert many.operators.total() < 1.3 * one.operators.total()


def test_torchvisions_waits_grow_with_the_batch() -> None:
    """What all this is for; on the CPU, as torchvision's cannot run without data."""
    syncs = []
    for images in (1, 4):
        model = as_torchvision(create_model[SINGLE](5, pretrained=False)).train()
        batch = batch_of([2] * images, (96, 128))
        with OpCounter(CPU) as counter:
            sum(model(batch).values()).backward()
        syncs.append(counter.syncs.total())
    assert syncs[1] > 2 * syncs[0] > 10
