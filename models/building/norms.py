"""Batch norms of a backbone: trained, frozen, replaced by group norms, or synchronized over all processes."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from models.rcnn.errors import ModelError

_GROUPS = 32  # Wu and He 2018, https://arxiv.org/abs/1803.08494, section 4
_BATCH_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


class UncountedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm without num_batches_tracked, which only a momentum of None reads: FrozenBatchNorm2d's keys."""

    def __init__(self, num_features: int, **options: Any) -> None:
        super().__init__(num_features, **options)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        nn.Module._load_from_state_dict(self, state_dict, prefix, *others)  # BatchNorm2d's would ask for the counter


def published_norm(norm: str) -> type[nn.Module]:
    """The class of norms in detectors that torchvision published with frozen ones; both have the same keys."""
    return FrozenBatchNorm2d if norm in ("own", "frozen") else UncountedBatchNorm2d


class _GroupNormAct(nn.GroupNorm):
    """A group norm followed by an activation, as some libraries build it into their batch norms."""

    def __init__(self, groups: int, channels: int, eps: float, act: nn.Module) -> None:
        super().__init__(groups, channels, eps=eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """See GroupNorm."""
        return self.act(super().forward(x))


def batch_norms(module: nn.Module) -> list[str]:
    """Names of all batch norms within a module, trainable or of the frozen kind."""
    return [name for name, child in module.named_modules() if isinstance(child, _BATCH_NORMS)]


def replace_by_group_norms(module: nn.Module) -> None:
    """Replace every batch norm by a group norm with the same scale and shift.

    Raises:
        ModelError: there are no batch norms.
    """
    names = batch_norms(module)
    if not names:
        raise ModelError("norm is 'group', and this backbone has no batch norms to replace: leave --norm out")
    for name in names:
        parent, _, child = name.rpartition(".")
        norm = module.get_submodule(name)
        channels = len(norm.weight)
        act = getattr(norm, "act", None)
        groups = math.gcd(_GROUPS, channels)
        new = _GroupNormAct(groups, channels, norm.eps, act) if act else nn.GroupNorm(groups, channels, norm.eps)
        new.to(norm.weight.device)
        with torch.no_grad():
            new.weight.copy_(norm.weight)
            new.bias.copy_(norm.bias)
        setattr(module.get_submodule(parent), child, new)


def with_synchronized_batchnorm(model: nn.Module) -> nn.Module:
    """`model`, its batch norms replaced by ones over all processes; parameters and state-dict keys stay the same.

    torch's SyncBatchNorm counts batches, which UncountedBatchNorm2d does not: it gets a counter that no file holds.
    """
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for norm in model.modules():
        if isinstance(norm, nn.SyncBatchNorm) and norm.num_batches_tracked is None:
            counter = torch.zeros((), dtype=torch.int64, device=norm.running_mean.device)
            norm.register_buffer("num_batches_tracked", counter, persistent=False)
    return model
