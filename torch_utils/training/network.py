"""Build the network of a training run from its options."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from models.building.build_options import default_options
from models.building.builder import set_anchors
from models.building.norms import with_synchronized_batchnorm
from models.create_fasterrcnn_model import create_from_checkpoint, create_model
from models.rcnn.detector import FasterRCNN
from models.rcnn.losses import ClassifierLoss
from torch_utils.distributed import Processes
from torch_utils.training.sampling import class_weights
from utils.cli.train_options import TrainOptions
from utils.errors import UserError
from utils.labels.anchors import AnchorGrid, fit_grid
from utils.labels.index import LabelIndex


def make_model(options: TrainOptions, checkpoint: Mapping[str, Any] | None, num_classes: int) -> FasterRCNN:
    """The model of --model, or of the checkpoint: with its weights, and with a new box predictor for other classes."""
    requested = options.build_arguments()
    if options.resume_training:
        return create_from_checkpoint(checkpoint, **requested)
    if checkpoint is not None:
        return create_from_checkpoint(checkpoint, num_classes=num_classes, **requested)
    build_options = replace(default_options(options.pretrained), **requested)
    return create_model[options.model](num_classes, pretrained=options.pretrained, options=build_options)


def fit_anchors(model: FasterRCNN, options: TrainOptions, boxes: np.ndarray) -> str:
    """Fit the anchors to the training boxes where --anchors auto says so; what to log about them."""
    by_level, ratios = model.rpn.anchor_generator.sizes, model.rpn.anchor_generator.aspect_ratios[0]
    split_by_level = model.spec.one_anchor_size_per_level
    sizes = tuple(chain.from_iterable(by_level)) if split_by_level else by_level[0]
    given = AnchorGrid(sizes, ratios, model.spec.levels, split_by_level=split_by_level)
    if options.anchors == "default" or options.resume_training:
        return f"Anchors: {given.summary(boxes)}"
    fitted = fit_grid(given, boxes)
    set_anchors(model, fitted.sizes, fitted.ratios)
    return f"Anchors (--anchors auto): {fitted.summary(boxes)}\n  before: {given.summary(boxes)}"


def set_classifier_loss_of(model: FasterRCNN, options: TrainOptions, index: LabelIndex) -> list[str]:
    """Give the box classifier the loss of --class-weights and --focal-loss, if they are there; what to log about it."""
    weights = class_weights(index) if options.class_weights == "balanced" else None
    if weights is not None or options.focal_loss:
        tensor = None if weights is None else torch.from_numpy(weights)
        model.set_classifier_loss(ClassifierLoss(tensor, options.focal_loss or 0.0))
    if weights is None:
        return []
    words = (f"{name} {weight:.3g}" for name, weight in zip(index.classes[1:], weights[1:], strict=True))
    return [f"Class weights (--class-weights balanced): {', '.join(words)}"]


def for_training(model: FasterRCNN, options: TrainOptions, processes: Processes) -> nn.Module:
    """The model as this process, perhaps one of several, trains it."""
    network = with_synchronized_batchnorm(model) if options.sync_bn and processes.several else model
    if options.compile:
        compile_backbone(network.backbone, processes.device)
    if not processes.several:
        return network
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=devices)


def compile_backbone(backbone: nn.Module, device: torch.device) -> None:
    """Compile a backbone in place, on its first batch; state-dict keys stay the same.

    Raises:
        UserError: this machine lacks what compiling needs.
    """
    try:
        torch.compile(_any_function)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        needs = "a C++ compiler (g++)" if device.type == "cpu" else "Triton, a C compiler and Python's headers"
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"--compile needs {needs}, and does not work here ({first}): drop --compile") from None
    backbone.forward = torch.compile(
        backbone.forward
    )  # Module.compile() leaves torch's own, as Sequential, as they are


def _any_function(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
