"""A checkpoint of a small detector, for tests of what uses one."""

from pathlib import Path

import torch

from models.create_fasterrcnn_model import create_model
from tests.conftest import CLASSES
from torch_utils.checkpoint import save_checkpoint


def write_checkpoint(path: Path, *, spread: float = 1.0) -> Path:
    """Random weights that find many boxes, "trained" at 64 px; the larger `spread`, the more scores differ."""
    torch.manual_seed(0)
    model = create_model["fasterrcnn_nano"](len(CLASSES), pretrained=False)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 1.0, 0.9]))
        model.roi_heads.box_predictor.cls_score.weight.mul_(spread)
    save_checkpoint(
        path,
        {
            "model_name": "fasterrcnn_nano", "model_state_dict": model.state_dict(), "data": {"CLASSES": CLASSES},
            "classes": CLASSES, "size_rule": {"size": 64, "max_size": 1333, "square": False},
            "model_options": model.build_options.as_dict(),
        },
    )  # fmt: skip
    return path
