"""The box head of two linear layers: torchvision's parameters and keys, without a copy of what was pooled."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from models.rcnn.roi_pool import SIDE


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
