"""Loss of the box classifier for classes of unequal frequency."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassifierLoss(nn.Module):
    """Cross entropy with a weight per class; confident predictions are down-weighted.

    Args:
        weights: (classes,) with the background; None: all weigh the same.
        gamma: exponent of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), over a softmax; 0 is
            plain cross entropy.
    """

    def __init__(self, weights: Tensor | None, gamma: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over N proposals of `logits` (N, classes) float32 against `labels` (N,) int64."""
        return self.per_proposal(logits, labels).mean()

    def per_proposal(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As forward(), for each proposal, (N,)."""
        log_likelihood = F.log_softmax(logits, 1).gather(1, labels[:, None]).squeeze(1)
        losses = -log_likelihood
        if self.gamma:
            losses = (
                losses * (-torch.expm1(log_likelihood)).clamp(min=1e-7) ** self.gamma
            )  # the power of 0 has no finite gradient for gamma < 1
        if self.weights is not None:
            losses = losses * self.weights[labels]
        return losses
