"""The detector as one graph: onnxruntime finds in real pixels what PyTorch finds."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.common.lively import CANVAS, lively, picture
from benchmarks.onnx.models import LIBRARIES, TOO_LARGE, Pair
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from models.rcnn.onnx_graph import OnnxGraph
from torch_utils.onnx_export import EXACT, HALF, compare_detections, to_onnx
from utils.loading.size_rule import Canvas, SizeRule

QUICK = ("fasterrcnn_nano", "fasterrcnn_mobilenetv3_large_320_fpn")


@pytest.mark.full
@pytest.mark.parametrize("name", QUICK)
def test_a_file_finds_what_the_model_finds(name: str) -> None:
    found = Pair(lively(name), name, CANVAS).difference()
    assert found.unmatched == 0, found
    assert found.boxes > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*create_model, *LIBRARIES} - {*QUICK, *TOO_LARGE}))
def test_every_model_can_be_exported(name: str) -> None:
    found = Pair(lively(name), name, CANVAS).difference()
    gc.collect()
    assert found.unmatched == 0, found
    assert found.boxes > 20


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_for_an_onnx_file(name: str) -> None:
    """It was a traceback of protobuf, after minutes."""
    with torch.device("meta"):
        model = create_model[name](3, pretrained=False)
    with pytest.raises(ModelError, match=r"too large for an ONNX file, which has at most 2 GiB: --half halves it"):
        to_onnx(model, (64, 64))


@pytest.mark.full
@pytest.mark.parametrize("name", [QUICK[0], pytest.param(QUICK[1], marks=pytest.mark.slow)])
def test_any_size(name: str) -> None:
    """Fault of the predecessor: export failed on torch 2.9 and later; and of ours: of whatever has a pyramid."""
    pair = Pair(lively(name), name, SizeRule(200))
    found = pair.difference()
    assert (found.unmatched, found.boxes > 20) == (0, True), found
    pair.onnx.set_input_size(imgsz=64, square=False)  # where the pyramid's last map has a single row
    found = pair.difference()
    assert (found.unmatched, found.boxes > 20) == (0, True), found


@pytest.mark.full
def test_half_precision() -> None:
    model = lively("fasterrcnn_nano")
    pair = Pair(model, "fasterrcnn_nano", Canvas(128, 128), half=True)
    found = pair.difference()
    assert (found.within(HALF), found.within(EXACT), found.boxes > 20) == (True, found.unmatched == 0, True), found
    assert len(pair.content) < 0.55 * 4 * sum(p.numel() for p in model.parameters())
    assert next(model.parameters()).dtype == torch.float32  # the model itself stays as it was


@pytest.mark.full
def test_several_images_a_call() -> None:
    """Fault of the predecessor: its "dynamic batch" was not."""
    model = lively("fasterrcnn_nano")
    pair = Pair(model, "fasterrcnn_nano", Canvas(128, 160), batch=3)
    one, several = pair.torch, pair.onnx
    images = [picture()[:, : 600 + 80 * i] for i in range(4)]  # one call, and one that is filled up
    together = several(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = several([image])
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        assert len(found) > 0
    assert compare_detections(one, several, images, EXACT, padded=False).unmatched == 0
    with pytest.raises(ModelError, match="requires batch 1, not 3"):
        to_onnx(model, None, batch=3)


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [{"class_agnostic": True}, {"detections": 300, "nms": 0.9, "proposals": 2000}, {"head_width": 64}],
    ids=lambda options: next(iter(options)),
)
def test_choices_of_the_network_are_in_the_graph(options: dict) -> None:
    model = lively("fasterrcnn_nano", options=replace(RANDOM, **options))
    found = Pair(model, "fasterrcnn_nano", Canvas(128, 128)).difference()
    assert (found.unmatched, found.boxes > 20) == (0, True), found


@pytest.mark.full
def test_no_detection_and_no_pixel_of_the_padding() -> None:
    """An image in which nothing is found, and one whose padding is not zero."""
    model = lively("fasterrcnn_nano")
    graph = OnnxGraph(model, (64, 96)).eval()
    images = torch.from_numpy(picture()[None, :64, :96].copy())
    sizes = torch.tensor([[50, 70]])
    dirty = graph(images, sizes)
    images[:, 50:], images[:, :, 70:] = 0, 0
    for one, other in zip(dirty, graph(images, sizes), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert dirty[0][..., 2].max() <= 70
    assert dirty[0][..., 3].max() <= 50
    model.roi_heads.score_thresh = 1.0
    assert len(Pair(model, "fasterrcnn_nano", Canvas(64, 96)).onnx(picture())) == 0


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        OnnxGraph(lively("fasterrcnn_nano"), (100, 128))
    with pytest.raises(ModelError, match="too small for this backbone"):
        OnnxGraph(create_model["fasterrcnn_squeezenet1_1"](2, pretrained=False).eval(), (0, 32))
