"""Random networks calibrated to behave like trained ones, for comparisons without published weights."""

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
_RESIDUAL = 0.1  # scale of residual branches, small as in trained networks: else rounding grows with every block


def lively(name: str, num_classes: int = len(CLASSES), **options: object) -> FasterRCNN:
    """Build a random network whose boxes and scores vary like a trained one's: none are tied or saturated."""
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
    """Photograph, (H, W, 3) uint8 RGB."""
    return read_image(_PICTURE)


def picture_and_rotated() -> list[np.ndarray]:
    """The photograph, and a copy rotated by 90 degrees."""
    return [picture(), np.ascontiguousarray(np.rot90(picture()))]


def _take_statistics(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Set batch-norm statistics from the first images, so activations neither vanish nor explode at any depth."""
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3), unbiased=False) + 1e-4)


def _scale(layer: nn.Module, spread: float) -> None:
    """Scale the layer's weights so that its first output has this standard deviation."""

    def scale(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        handle.remove()
        layer.weight.data.mul_(spread / output.std())
        return output * (spread / output.std())

    handle = layer.register_forward_hook(scale)
