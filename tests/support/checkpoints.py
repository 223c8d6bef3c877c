"""Checkpoints of a small detector with random weights, for tests of what uses one."""

from collections.abc import Sequence
from pathlib import Path

import torch

from models.create_fasterrcnn_model import create_model
from models.rcnn.detector import FasterRCNN
from tests.conftest import CLASSES
from torch_utils.checkpoint import save_checkpoint

CONFIDENT = {"biases": (0.0, 3.5, 3.4), "size": 96, "best_threshold": 0.4}  # high scores, and a stored threshold


def write_checkpoint(
    path: Path,
    model: FasterRCNN | None = None,
    *,
    biases: Sequence[float] = (0.0, 1.0, 0.9),
    spread: float = 1.0,
    size: int = 64,
    square: bool = False,
    **more: object,
) -> Path:
    """Write a checkpoint of a detector that finds many boxes; without `model`, of fasterrcnn_nano from one seed.

    Args:
        biases: of the classifier; the higher those of the two classes, the higher all scores.
        spread: factor of the classifier's weights; the larger, the more scores differ.
        size: px, at which the checkpoint says that it was trained; `square` as --square-training.
        more: further keys of the checkpoint.
    """
    if model is None:
        torch.manual_seed(0)
        model = create_model["fasterrcnn_nano"](len(CLASSES), pretrained=False)
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor(biases))
            model.roi_heads.box_predictor.cls_score.weight.mul_(spread)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        path,
        {
            "model_name": "fasterrcnn_nano", "model_state_dict": model.state_dict(), "data": {"CLASSES": CLASSES},
            "classes": CLASSES, "size_rule": {"size": size, "max_size": 1333, "square": square},
            "model_options": model.build_options.as_dict(), **more,
        },
    )  # fmt: skip
    return path
