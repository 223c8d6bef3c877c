"""Exponential moving average of a model's weights (Polyak and Juditsky 1992, https://doi.org/10.1137/0330046)."""

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a model, evaluated and saved instead of it.

    Parameters and batch norm statistics are averaged, and counters copied. The decay of update t, from 0, is
    min(decay, (1 + t) / (10 + t)), so that a short run does not average its random start in. It is a function of t: a
    run that is resumed needs no other state than the average.

    Attributes:
        model: the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        own, followed = self.model.state_dict(), model.state_dict()
        moving = [name for name, value in followed.items() if value.is_floating_point() and name not in frozen]
        counters = [name for name, value in followed.items() if not value.is_floating_point()]
        self._averages, self._values = [own[name] for name in moving], [followed[name] for name in moving]
        self._own_counters, self._counters = [own[name] for name in counters], [followed[name] for name in counters]

    def decay_at(self, update: int) -> float:
        """Share of the average that an update, counted from 0 over the whole run, leaves as it is."""
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def follow(self, update: int, taken: Tensor) -> None:
        """Move towards the model's weights as they are after an update, without waiting for a GPU.

        Args:
            taken: () bool on the model's device; False leaves the average as it is.
        """
        distances = torch._foreach_sub(self._values, self._averages)
        torch._foreach_mul_(distances, taken * (1 - self.decay_at(update)))
        torch._foreach_add_(self._averages, distances)
        for own, counter in zip(self._own_counters, self._counters, strict=True):
            own.copy_(counter)
