"""Optimizer and learning-rate schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

_WARMUP_STEPS = 1000  # at most, and at most one epoch; torchvision's detection reference
_WARMUP_START = 1e-3  # of the learning rate
_COSINE_FLOOR = 0.01  # of the learning rate, at the last step
_MILESTONES = (2 / 3, 8 / 9)  # of the epochs; detectron2's for COCO
_STEP = 0.1  # of the learning rate, what each milestone leaves
_ONE_CYCLE_RISE = 0.3  # of the run; this and the two below are torch's OneCycleLR's
_ONE_CYCLE_START = 1 / 25  # of the learning rate
_ONE_CYCLE_END = 1e-4  # of the start
REFERENCE_BATCH = 4  # images an update, for which --lr is meant where --scale-lr scales it: the default of --batch
LR_SCALE = "lr_scale"  # key of a parameter group: its share of the learning rate
_WEIGHT_DECAY = {"SGD": 1e-4, "AdamW": 1e-2}
_UNDECAYED = ("pos_embed", "rel_pos", "relative_position", "position_embedding", "token")  # in a parameter's own name


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    *,
    weight_decay: float | None = None,
    decay_all: bool = False,
    stages: Sequence[Sequence[str]] = (),
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """SGD (Nesterov momentum 0.9) or AdamW over the parameters that are trained, in the model's order within a group.

    On a GPU it is the fused kind, which can leave a step out without asking the host.

    Args:
        weight_decay: None is 1e-4 for SGD, 1e-2 for AdamW.
        decay_all: decay everything, in one group. Without it parameters of one dimension, which are norms and biases,
            and position embeddings and tokens, go without.
        stages: parameter-name prefixes in groups, from the image on.
        layer_decay: the learning rate of each stage over that of the next one, and of the last one over that of all
            other parameters; as in BEiT (https://arxiv.org/abs/2106.08254) and ViTDet.
    """
    decay = _WEIGHT_DECAY[name] if weight_decay is None else weight_decay
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}  # whatever the decay, so that it may change on resuming
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = _steps_to_the_end(parameter_name, stages) if layer_decay < 1 else 0
            is_decayed = decay_all or _is_decayed(parameter_name, parameter)
            groups.setdefault((layer_decay**depth, is_decayed), []).append(parameter)
    arguments = [
        {"params": parameters, LR_SCALE: scale, "weight_decay": decay if is_decayed else 0.0}
        for (scale, is_decayed), parameters in groups.items()
    ]
    fused = True if next(model.parameters()).device.type == "cuda" else None
    if name == "SGD":
        return torch.optim.SGD(arguments, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=fused)
    return torch.optim.AdamW(arguments, lr=lr, weight_decay=decay, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, scaled by the group's share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[LR_SCALE]


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not any(word in name.rpartition(".")[2] for word in _UNDECAYED)


def _steps_to_the_end(name: str, stages: Sequence[Sequence[str]]) -> int:
    """Number of stages from this parameter's to the last one, both included; 0 for a parameter outside all stages."""
    for i, stage in enumerate(stages):
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in stage):
            return len(stages) - i
    return 0


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step alone: a resumed run needs no other state.

    It rises in a line over the warm-up, and then

    constant: stays.
    cosine: falls along half a cosine to a hundredth at the last step.
    step: falls to a tenth after each of `milestones` (epochs), without them after 2/3 and 8/9 of the run.

    one-cycle (Smith and Topin 2018, https://arxiv.org/abs/1708.07120) has a rise of its own, as torch's OneCycleLR:
    along a cosine from a 25th, over 30 % of the run, and then along a cosine to a 250,000th.
    """

    lr: float
    steps_per_epoch: int
    epochs: int
    kind: str = "constant"
    milestones: tuple[int, ...] = ()

    @property
    def warmup_steps(self) -> int:
        """At most a quarter of the run, so that short runs leave the warm-up."""
        total = self.steps_per_epoch * self.epochs
        return min(_WARMUP_STEPS, max(self.steps_per_epoch, 10), total // 4)

    def at(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        last = self.steps_per_epoch * self.epochs - 1
        if self.kind == "one-cycle":
            return self.lr * _one_cycle(step, last)
        if step < self.warmup_steps:
            return self.lr * (_WARMUP_START + (1 - _WARMUP_START) * (step + 1) / (self.warmup_steps + 1))
        if self.kind == "cosine":
            progress = (step - self.warmup_steps) / max(1, last - self.warmup_steps)
            return self.lr * _cosine(1, _COSINE_FLOOR, progress)
        if self.kind == "step":
            milestones = self.milestones or [round(share * self.epochs) for share in _MILESTONES]
            return self.lr * _STEP ** sum(step // self.steps_per_epoch >= milestone for milestone in milestones)
        return self.lr


def _cosine(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine, and no further."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def _one_cycle(step: int, last: int) -> float:
    top = max(_ONE_CYCLE_RISE * (last + 1) - 1, 0.0)  # step at which the learning rate is reached
    if step < top:
        return _cosine(_ONE_CYCLE_START, 1, step / top)
    return _cosine(1, _ONE_CYCLE_START * _ONE_CYCLE_END, (step - top) / max(1.0, last - top))
