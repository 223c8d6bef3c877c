"""Losses of the box classifier for classes of unlike frequency."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.roi_heads import BlockRoIHeads


class ClassifierLoss(nn.Module):
    """Cross entropy with a weight for each class, and less of it where the classifier is right already.

    Args:
        weights: (classes,) with the background; None weighs all alike.
        gamma: exponent of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), over a softmax; 0 is
            plain cross entropy.
    """

    def __init__(self, weights: Tensor | None, gamma: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over N proposals of `logits` (N, classes) float32 against `labels` (N,) int64."""
        return self.per_image(logits, labels).mean()

    def per_image(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As forward(), of each proposal, (N,)."""
        log_likelihood = F.log_softmax(logits, 1).gather(1, labels[:, None]).squeeze(1)
        losses = -log_likelihood
        if self.gamma:
            losses = losses * (-torch.expm1(log_likelihood)).clamp(min=1e-7) ** self.gamma  # 0 has no slope below 1
        if self.weights is not None:
            losses = losses * self.weights[labels]
        return losses


class _RoIHeads(BlockRoIHeads):
    """RoI heads with a classifier loss of their own."""

    classifier_loss: ClassifierLoss

    def classifier_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See BlockRoIHeads."""
        return self.classifier_loss.per_image(logits, labels)


def set_classifier_loss(detector: FasterRCNN, loss: ClassifierLoss) -> None:
    """Train the box classifier with this loss; state-dict keys stay the same.

    Raises:
        ModelError: torchvision's own code computes the losses, which knows cross entropy alone.
    """
    if detector.use_torchvision_ops:
        raise ModelError(
            "the detector is torchvision's, which has no class weights and no focal loss: drop one of them"
        )
    detector.roi_heads.__class__ = _RoIHeads
    detector.roi_heads.classifier_loss = loss
