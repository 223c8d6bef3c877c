"""Random networks that behave as trained ones do, for comparisons where there are no published weights."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.create_fasterrcnn_model import create_model
from models.rcnn.detector import FasterRCNN
from utils.detect.detector import DetectorInfo
from utils.detect.torch_detector import TorchDetector
from utils.images.image_files import read_image
from utils.loading.size_rule import Canvas

CLASSES = ("__background__", "square", "disc")
CANVAS = Canvas(192, 256)
_PICTURE = Path(__file__).resolve().parents[2] / "example_test_data" / "image_1.jpg"
_RESIDUAL = 0.1  # what a residual block adds, as trained ones add little: else rounding grows with every block


def lively(name: str, num_classes: int = len(CLASSES), **options: object) -> FasterRCNN:
    """A network of random weights whose boxes and scores vary as a trained one's do: none are tied or saturated."""
    torch.manual_seed(0)
    model = create_model[name](num_classes, pretrained=False, **options).eval()
    for module in model.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            (module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight.data.fill_(_RESIDUAL)
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    rpn, predictor = model.rpn.head, model.roi_heads.box_predictor
    spreads = {rpn.cls_logits: 2.0, rpn.bbox_pred: 0.1, predictor.cls_score: 1.0, predictor.bbox_pred: 0.2}
    for layer, spread in spreads.items():
        _scale(layer, spread)
    detector = TorchDetector(model, DetectorInfo(name, CLASSES, CANVAS, "cpu", "random"), torch.device("cpu"))
    detector([cv2.resize(image, (CANVAS.width, CANVAS.height)) for image in picture_and_rotated()])
    for hook in hooks:
        hook.remove()
    return model


def picture() -> np.ndarray:
    """(H, W, 3) uint8 RGB, a photograph."""
    return read_image(_PICTURE)


def picture_and_rotated() -> list[np.ndarray]:
    """Two pictures of one."""
    return [picture(), np.ascontiguousarray(np.rot90(picture()))]


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
