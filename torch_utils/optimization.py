"""Optimizer and learning-rate schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

_WARMUP_STEPS = 1000  # at most, and at most one epoch; torchvision's detection reference
_WARMUP_START = 1e-3  # of the learning rate
_COSINE_FLOOR = 0.01  # of the learning rate, at the last step
LR_SCALE = "lr_scale"  # key of a parameter group: its share of the learning rate
_WEIGHT_DECAY = {"SGD": 1e-4, "AdamW": 1e-2}


def make_optimizer(
    model: nn.Module, name: str, lr: float, *, stages: Sequence[Sequence[str]] = (), layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """SGD (Nesterov momentum 0.9) or AdamW over the parameters that are trained, in the model's order.

    Args:
        stages: parameter-name prefixes in groups, from the image on.
        layer_decay: the learning rate of each stage over that of the next one, and of the last one over that of all
            other parameters; as in BEiT (https://arxiv.org/abs/2106.08254) and ViTDet.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = _steps_to_the_end(parameter_name, stages) if layer_decay < 1 else 0
            groups.setdefault(layer_decay**depth, []).append(parameter)
    arguments = [{"params": parameters, LR_SCALE: scale} for scale, parameters in groups.items()]
    if name == "SGD":
        return torch.optim.SGD(arguments, lr=lr, momentum=0.9, nesterov=True, weight_decay=_WEIGHT_DECAY[name])
    return torch.optim.AdamW(arguments, lr=lr, weight_decay=_WEIGHT_DECAY[name])


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set that of every group, by its share; groups of a file of the predecessor have none."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)


def _steps_to_the_end(name: str, stages: Sequence[Sequence[str]]) -> int:
    """How many stages there are from this parameter's to the last one, which counts too; 0 outside of all."""
    for i, stage in enumerate(stages):
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in stage):
            return len(stages) - i
    return 0


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
