"""Optimizer and learning-rate schedule."""

import math
from dataclasses import dataclass

import torch
from torch import nn

_WARMUP_STEPS = 1000  # at most, and at most one epoch; torchvision's detection reference
_WARMUP_START = 1e-3  # of the learning rate
_COSINE_FLOOR = 0.01  # of the learning rate, at the last step
_WEIGHT_DECAY = {"SGD": 1e-4, "AdamW": 1e-2}


def make_optimizer(model: nn.Module, name: str, lr: float) -> torch.optim.Optimizer:
    """SGD (Nesterov momentum 0.9) or AdamW over the parameters that are trained, in the model's order."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if name == "SGD":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=_WEIGHT_DECAY[name])
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=_WEIGHT_DECAY[name])


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step alone: a resumed run needs no other state.

    It rises in a line over the warm-up, and then stays, or falls along half a cosine to a hundredth at the last step.
    """

    lr: float
    steps_per_epoch: int
    epochs: int
    cosine: bool

    @property
    def warmup_steps(self) -> int:
        """At most a quarter of the run, so that short runs leave the warm-up."""
        total = self.steps_per_epoch * self.epochs
        return min(_WARMUP_STEPS, max(self.steps_per_epoch, 10), total // 4)

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        if step < self.warmup_steps:
            return self.lr * (_WARMUP_START + (1 - _WARMUP_START) * (step + 1) / (self.warmup_steps + 1))
        if not self.cosine:
            return self.lr
        last = self.steps_per_epoch * self.epochs - 1
        progress = (step - self.warmup_steps) / max(1, last - self.warmup_steps)
        return self.lr * (_COSINE_FLOOR + (1 - _COSINE_FLOOR) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)
