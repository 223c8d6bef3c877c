"""Graphs without a GPU: a recording's stand-in runs the function again on the memory that it was recorded with."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

from benchmarks.common.lively import lively
from benchmarks.common.op_counter import OpCounter
from benchmarks.operators import META
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn import cuda_graphs
from models.rcnn.cuda_graphs import MOST_SHAPES, GraphedDetector
from models.rcnn.detector import FasterRCNN
from tests.support.batches import batch_of
from utils.loading.batch import Batch

NANO = "fasterrcnn_nano"


class Replay:
    """What a graph does: copies its inputs to where they were, and does the same again there."""

    made = 0
    deaf = False  # whether it goes on with what it was recorded with
    pool = "shared"
    given: list[object] = []

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor, pool: object = None) -> None:
        type(self).made += 1
        self.given.append(pool)
        self._function, self._inputs = function, [torch.zeros_like(given) for given in inputs]
        function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            if not self.deaf:
                own.copy_(given)
        return self._function(*self._inputs)


@pytest.fixture
def model() -> FasterRCNN:
    model = lively(NANO, 3, options=replace(RANDOM, proposals=50, head_width=64))
    model.use_static_shapes(True)
    return model


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> type[Replay]:
    kind = type("Fresh", (Replay,), {"given": []})
    monkeypatch.setattr(cuda_graphs, "Recording", kind)
    return kind


def noise(size: tuple[int, int], seed: int = 0) -> Batch:
    batch = batch_of([1, 2], size)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, batch.images.shape, dtype=torch.uint8, generator=generator)
    return type(batch)(**{**vars(batch), "images": images, "original_sizes": batch.sizes * 2})


def assert_as_without(detect: GraphedDetector, model: FasterRCNN, batch: Batch) -> None:
    with torch.inference_mode():
        expected = model(batch)
    for one, other in zip(detect(batch), expected, strict=True):
        assert len(one["boxes"]) > 0
        for key, value in other.items():
            assert torch.equal(one[key], value), key


def test_a_shape_that_comes_again_is_recorded_and_then_replayed(
    model: FasterRCNN, replay: type[Replay], caplog: pytest.LogCaptureFixture
) -> None:
    detect = GraphedDetector(model)
    with caplog.at_level(logging.INFO):
        for seed, recorded in enumerate((0, 1, 1, 1)):
            assert_as_without(detect, model, noise((96, 128), seed))
            assert replay.made == recorded
        assert_as_without(detect, model, noise((64, 128), 9))
    assert replay.made == 1, "the other shape came once"
    assert [r.getMessage() for r in caplog.records] == ["CUDA graph for batches of 2 x 128 x 96 px"]


def test_images_of_other_sizes_share_the_graph_of_their_block(model: FasterRCNN, replay: type[Replay]) -> None:
    detect = GraphedDetector(model)
    for size in ((96, 128), (90, 120), (70, 100)):
        batch = noise((96, 128))
        smaller = type(batch)(**{**vars(batch), "sizes": torch.tensor([size, size])})
        assert_as_without(detect, model, smaller)
    assert replay.made == 1


def test_what_cannot_be_recorded_is_told_once(
    model: FasterRCNN, replay: type[Replay], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Replay, *_: object, **__: object) -> None:
        type(self).made += 1
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(replay, "__init__", refuse)
    detect = GraphedDetector(model)
    for size in ((96, 128), (64, 128)):
        for seed in range(3):
            assert_as_without(detect, model, noise(size, seed))
    assert replay.made == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("CUDA error: operation not permitted when stream is capturing")


def test_a_recording_that_fails_gives_the_memory_of_all_back(
    model: FasterRCNN, replay: type[Replay], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As torch says it: the cause is the context of the error that ends the recording."""

    def fail(self: Replay, *_: object, **__: object) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    detect = GraphedDetector(model)
    for seed in range(2):
        assert_as_without(detect, model, noise((96, 128), seed))
    assert len(detect._recordings) == 1
    monkeypatch.setattr(replay, "__init__", fail)
    for seed in range(2):
        assert_as_without(detect, model, noise((64, 128), seed))
    assert detect._recordings == {}
    assert_as_without(detect, model, noise((96, 128)))
    assert [r.getMessage() for r in caplog.records] == [
        "no CUDA graphs, detection is slower without: CUDA out of memory. Tried to allocate 20.00 MiB."
    ]


def test_threads_take_turns(model: FasterRCNN, replay: type[Replay], monkeypatch: pytest.MonkeyPatch) -> None:
    """A result lies where the next replay writes its own."""
    replaying = threading.Lock()
    real = cuda_graphs.unpad_detections

    def alone(block: Tensor) -> list[dict[str, Tensor]]:
        assert replaying.acquire(blocking=False), "another thread's result is read"
        time.sleep(0.02)
        found = real(block)
        replaying.release()
        return found

    monkeypatch.setattr(cuda_graphs, "unpad_detections", alone)
    detect = GraphedDetector(model)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(detect, [noise((96, 128), seed) for seed in range(8)]))
    assert len(found) == 8


def test_a_graph_that_does_not_hear_is_not_used(
    model: FasterRCNN, replay: type[Replay], caplog: pytest.LogCaptureFixture
) -> None:
    replay.deaf = True
    detect = GraphedDetector(model)
    for seed in range(3):
        assert_as_without(detect, model, noise((96, 128), seed))
    assert "finds something else" in caplog.text


def test_so_many_shapes_and_no_more(model: FasterRCNN, replay: type[Replay], caplog: pytest.LogCaptureFixture) -> None:
    detect = GraphedDetector(model)
    with caplog.at_level(logging.INFO):
        for number in range(MOST_SHAPES + 2):
            for _ in range(2):
                detect(noise((64, 64 + 32 * number)))
    assert replay.made == MOST_SHAPES
    assert replay.given == [None] + ["shared"] * (MOST_SHAPES - 1), "memory"
    assert sum("without" in record.getMessage() for record in caplog.records) == 1


def test_the_anchors_that_a_graph_reads_are_kept(model: FasterRCNN, replay: type[Replay]) -> None:
    """The generator forgets them when many other shapes have come."""
    detect = GraphedDetector(model)
    detect(noise((96, 128))), detect(noise((96, 128)))
    anchors = model.rpn.anchor_generator
    own = anchors.cached((96, 128))
    for number in range(40):
        anchors.for_batch((32, 32 * (number + 1)), [torch.zeros(1, 1, 2, 2 * (number + 1))])
    assert len(own) == 1
    assert anchors.cached((96, 128)) == []
    (recording,) = detect._recordings.values()
    assert recording.keep[0][0] is own[0][0]


@pytest.mark.parametrize("name", [NANO, "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_what_is_recorded_asks_the_device_for_nothing(name: str) -> None:
    """A graph can hold no copy from the host, and no question."""
    model = create_model[name](3, pretrained=False, options=RANDOM).to(META).eval()
    batch = batch_of([1, 2], (96, 128)).to(META)
    images, sizes = batch.images, batch.sizes.to(META)
    no_autocast = mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext())  # meta has none
    with no_autocast, torch.inference_mode():
        model.detect_padded(images, sizes)  # computes the anchors
        with OpCounter(META) as counter:
            block = model.detect_padded(images, sizes)
    assert (counter.syncs, counter.copies) == ({}, 0)
    assert block.shape == (2, model.roi_heads.detections_per_img, 6)
