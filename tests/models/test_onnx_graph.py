"""The detector as one graph: onnxruntime finds in real pixels what PyTorch finds."""

import gc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.errors import ModelError
from models.onnx_graph import OnnxGraph
from models.rcnn.detector import FasterRCNN
from tests.conftest import CLASSES, ROOT
from torch_utils.onnx_export import EXACT, HALF, Difference, compare, content_of, to_onnx
from utils.detector import DetectorFacts
from utils.images import read_image
from utils.onnx_detector import OnnxDetector
from utils.onnx_file import OnnxMetadata
from utils.size_rule import Canvas, SizeRule
from utils.torch_detector import TorchDetector

CPU = torch.device("cpu")
QUICK = ("fasterrcnn_nano", "fasterrcnn_mobilenetv3_large_320_fpn")
LIBRARIES = (
    "timm/resnet18", "timm/convnext_atto", "timm/efficientvit_b0", "torchvision/resnet18", "torchvision/swin_t",
)  # fmt: skip
CANVAS = Canvas(192, 256)
RESIDUAL = 0.1  # what a residual block adds, as trained ones add little: else rounding grows with every block
TOO_LARGE = ("fasterrcnn_dinov3_vith16plus",)  # more than 2 GiB of weights


def lively(name: str, num_classes: int = len(CLASSES), **options: object) -> FasterRCNN:
    """A network of random weights whose boxes and scores vary as a trained one's do: none are tied or saturated."""
    torch.manual_seed(0)
    model = create_model[name](num_classes, pretrained=False, **options).eval()
    detector = TorchDetector(model, DetectorFacts(name, tuple(CLASSES), CANVAS, "cpu", "random"), CPU)
    for module in model.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            (module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight.data.fill_(RESIDUAL)
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    rpn, predictor = model.rpn.head, model.roi_heads.box_predictor
    spreads = {rpn.cls_logits: 2.0, rpn.bbox_pred: 0.1, predictor.cls_score: 1.0, predictor.bbox_pred: 0.2}
    for layer, spread in spreads.items():
        _scale(layer, spread)
    detector([cv2.resize(image, (CANVAS.width, CANVAS.height)) for image in upright_and_turned()])
    for hook in hooks:
        hook.remove()
    return model


def _take_statistics(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Of the first pictures, whose activations are then neither vanishing nor huge, however deep the network."""
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3), unbiased=False) + 1e-4)


def _scale(layer: nn.Module, spread: float) -> None:
    """Make this the standard deviation of what the layer says the first time."""

    def scale(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        handle.remove()
        layer.weight.data.mul_(spread / output.std())
        return output * (spread / output.std())

    handle = layer.register_forward_hook(scale)


def picture() -> np.ndarray:
    return read_image(ROOT / "example_test_data" / "image_1.jpg")


def upright_and_turned() -> list[np.ndarray]:
    return [picture(), np.ascontiguousarray(np.rot90(picture()))]


def metadata(name: str, rule: Canvas | SizeRule, *, batch: int = 1, half: bool = False) -> OnnxMetadata:
    return OnnxMetadata(name, tuple(CLASSES), rule, batch, half, None, "test")


def difference(
    model: FasterRCNN, name: str, rule: Canvas | SizeRule, *, batch: int = 1, half: bool = False
) -> tuple[Difference, bytes]:
    """Of the model and its file, on the picture upright and on its side."""
    size = (rule.height, rule.width) if isinstance(rule, Canvas) else None
    proto = to_onnx(model, size, batch=batch, half=half)
    content = content_of(proto, metadata(name, rule, batch=batch, half=half))
    other = OnnxDetector(Path(name), CPU, content=content)
    one = TorchDetector(model, other.facts, CPU)
    return compare(one, other, upright_and_turned(), HALF if half else EXACT, padded=False), content


@pytest.mark.parametrize("name", QUICK)
def test_a_file_finds_what_the_model_finds(name: str) -> None:
    found, _ = difference(lively(name), name, CANVAS)
    assert found.alone == 0, found
    assert found.boxes > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*create_model, *LIBRARIES} - {*QUICK, *TOO_LARGE}))
def test_every_model_can_be_exported(name: str) -> None:
    found, _ = difference(lively(name), name, CANVAS)
    gc.collect()
    assert found.alone == 0, found
    assert found.boxes > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_for_an_onnx_file(name: str) -> None:
    with pytest.raises(ModelError, match="too large for an ONNX file"):
        difference(create_model[name](3, pretrained=False), name, Canvas(64, 64))


@pytest.mark.parametrize("name", [QUICK[0], pytest.param(QUICK[1], marks=pytest.mark.slow)])
def test_any_size(name: str) -> None:
    """Fault of the predecessor: export failed on torch 2.9 and later; and of ours: of whatever has a pyramid."""
    model = lively(name)
    found, content = difference(model, name, SizeRule(200))
    assert (found.alone, found.boxes > 20) == (0, True), found
    small = OnnxDetector(Path(name), CPU, content=content)
    small.resized(imgsz=64, square=False)  # where the pyramid's last map has a single row
    found = compare(TorchDetector(model, small.facts, CPU), small, [picture()], EXACT, padded=False)
    assert (found.alone, found.boxes > 20) == (0, True), found


def test_half_precision() -> None:
    model = lively("fasterrcnn_nano")
    found, content = difference(model, "fasterrcnn_nano", Canvas(128, 128), half=True)
    assert (found.within(HALF), found.within(EXACT), found.boxes > 20) == (True, found.alone == 0, True), found
    assert len(content) < 0.55 * 4 * sum(p.numel() for p in model.parameters())
    assert next(model.parameters()).dtype == torch.float32  # the model itself stays as it was


def test_several_images_a_call() -> None:
    """Fault of the predecessor: its "dynamic batch" was not."""
    model = lively("fasterrcnn_nano")
    content = content_of(to_onnx(model, (128, 160), batch=3), metadata("x", Canvas(128, 160), batch=3))
    several = OnnxDetector(Path("x"), CPU, content=content)
    one = TorchDetector(model, several.facts, CPU)
    images = [picture()[:, : 600 + 80 * i] for i in range(4)]  # one call, and one that is filled up
    together = several(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = several([image])
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        assert len(found) > 0
    assert compare(one, several, images, EXACT, padded=False).alone == 0
    with pytest.raises(ModelError, match="takes one image a call, not 3"):
        to_onnx(model, None, batch=3)


@pytest.mark.parametrize(
    "options",
    [{"class_agnostic": True}, {"detections": 300, "nms": 0.9, "proposals": 2000}, {"head_width": 64}],
    ids=lambda options: next(iter(options)),
)
def test_choices_of_the_network_are_in_the_graph(options: dict) -> None:
    model = lively("fasterrcnn_nano", options=replace(RANDOM, **options))
    found, _ = difference(model, "fasterrcnn_nano", Canvas(128, 128))
    assert (found.alone, found.boxes > 20) == (0, True), found


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
    content = content_of(to_onnx(model, (64, 96)), metadata("x", Canvas(64, 96)))
    assert len(OnnxDetector(Path("x"), CPU, content=content)(picture())) == 0


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        OnnxGraph(lively("fasterrcnn_nano"), (100, 128))
    with pytest.raises(ModelError, match="too small for this backbone"):
        OnnxGraph(create_model["fasterrcnn_squeezenet1_1"](2, pretrained=False).eval(), (0, 32))
