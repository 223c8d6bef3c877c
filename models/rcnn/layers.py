"""Layers of torchvision's detector whose results stay fp32 inside autocast, and one that it has not."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead

from models.rcnn.roi_pool import SIDE


class Float32RPNHead(RPNHead):
    """The RPN's head with results in fp32 inside autocast: boxes decoded from half precision are pixels off."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See RPNHead."""
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class Float32Predictor(FastRCNNPredictor):
    """The box predictor in fp32 inside autocast: rounded logits would give scores that rank detections wrongly."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See FastRCNNPredictor."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class ClassAgnosticPredictor(Float32Predictor):
    """A box predictor with one box regression that holds for all classes (R-FCN, https://arxiv.org/abs/1605.06409)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, num_classes), and the same regression for each class, (N, 4 num_classes)."""
        scores, deltas = super().forward(x)
        return scores, deltas.repeat(1, scores.shape[1])


class LinearHead(TwoMLPHead):
    """torchvision's TwoMLPHead.

    Regions that lie channels last, as CPU training pools them, are multiplied as they lie, with weights in that order:
    these are a small copy, where the regions and their gradients would be two large ones.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels * SIDE**2, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 7, 7) -> (N, width)."""
        if x.is_contiguous() or x.device.type != "cpu":
            return super().forward(x)
        weight = self.fc6.weight.unflatten(1, x.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        rows = x.permute(0, 2, 3, 1).flatten(1)
        return F.relu(self.fc7(F.relu(F.linear(rows, weight, self.fc6.bias))))
