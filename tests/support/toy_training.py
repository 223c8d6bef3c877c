"""A training without a detector: four losses of a tiny network, and what drives them."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from tests.support.batches import batch_of
from torch_utils.distributed import Processes
from torch_utils.engine import train_one_epoch
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.optimization import Schedule, make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS
from torch_utils.training.update import Updater
from utils.loading.batch import Batch

CPU = torch.device("cpu")
INDEX = SimpleNamespace(path=lambda i: f"{i}.jpg")


def toy_batch(*ids: int) -> Batch:
    """Return images of 64 x 64 px with one box each, drawn from their ids."""
    return batch_of([1] * len(ids), (64, 64), ids=ids)


class Toy(nn.Module):
    """Four losses that are means over the images of a batch; images from 1000 on give NaN."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5) if norm else nn.Tanh(), nn.Linear(5, 4))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        values = batch.images[:, :2, 0].reshape(len(batch), -1).float() / 255
        values = values + torch.where(batch.image_ids >= 1000, torch.nan, 0.0)[:, None]
        return dict(zip(LOSS_TERMS, ((self.layers(values) - 1) ** 2).mean(0).unbind(), strict=True))


def make_updater(model: nn.Module, name: str = "SGD", fused: bool = False, **options) -> Updater:
    optimizer = make_optimizer(model, name, 0.05)
    if fused:  # as on a GPU
        groups = [{k: v for k, v in g.items() if k not in ("fused", "foreach")} for g in optimizer.param_groups]
        parts = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
        optimizer = getattr(torch.optim, name)(groups, lr=0.05, fused=True, **parts)
    return Updater(model, optimizer, Schedule(0.05, 4, 3), Precision(CPU), Processes(CPU), **options)


class ReadyBatches(list[Batch]):
    """Batches as a loader has them, without any waiting time."""

    data_wait_seconds = 0.0


def train(updater: Updater, batches: Sequence[Batch], *, epochs: int = 3, limit: int = 10) -> Tensor:
    guard = NonFiniteGuard(INDEX, Processes(CPU), limit, "Go on.")
    batches = ReadyBatches(batches)
    return torch.cat([train_one_epoch(updater.model, updater, batches, e, guard=guard).counted for e in range(epochs)])
