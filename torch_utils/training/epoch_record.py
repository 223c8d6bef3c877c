"""Losses of the steps of an epoch, kept on the device until somebody reads them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from torch_utils.distributed import Processes, all_gather
from torch_utils.training.non_finite import Update
from torch_utils.training.training_state import LOSS_TERMS, EpochProgress


class EpochRecord:
    """The losses of an epoch that is being trained; adding to it does not wait for a GPU.

    Args:
        steps: of the whole epoch, per process.
        start: first step of this record; the earlier ones are in `earlier`.
        earlier: what an interrupted run recorded of this epoch.
    """

    def __init__(self, steps: int, start: int, earlier: EpochProgress, processes: Processes, device: torch.device):
        self._start, self._earlier, self._processes = start, earlier, processes
        self._losses = torch.zeros(steps, len(LOSS_TERMS), device=device)
        self._skipped = torch.zeros(steps, dtype=torch.bool, device=device)
        self._update_start = self._end = start  # steps of the current update
        self._update_images: list[Tensor] = []
        self._images = 0  # of this process

    def start_update(self) -> None:
        """The next batch is the first of an update."""
        self._update_start, self._update_images = self._end, []

    def add(self, losses: Mapping[str, Tensor], image_ids: Tensor) -> None:
        """Add a step: LOSS_TERMS -> scalar, and the ids of the images of the batch, (B,) int64."""
        self._losses[self._end] = torch.stack([losses[name].detach() for name in LOSS_TERMS])
        self._update_images.append(image_ids)
        self._images += len(image_ids)
        self._end += 1

    @property
    def update_losses(self) -> Tensor:
        """(batches, 4) float32 LOSS_TERMS of the current update, on the device."""
        return self._losses[self._update_start : self._end]

    def finish_update(self, epoch: int, skipped: Tensor) -> Update:
        """End the update; `skipped`, () bool on the device, says that its loss or gradient was not finite."""
        self._skipped[self._update_start : self._end] = skipped
        return Update(epoch, self._end - 1, self.update_losses, self._update_images, skipped)

    def progress(self) -> EpochProgress:
        """Everything recorded of the epoch, losses averaged over the processes; every process calls this."""
        steps = slice(self._start, self._end)
        means = torch.stack([*all_gather(self._processes, self._losses[steps].cpu())]).mean(0)
        return self._earlier.joined(self._images * self._processes.world_size, means, self._skipped[steps].cpu())

    def loss_text(self) -> str:
        """Total loss of the last step, and the mean of the steps that were not skipped; waits for a GPU."""
        total = self._losses[: self._end].sum(1).cpu()
        mean = total[self._start :][~self._skipped[self._start : self._end].cpu()].mean()
        return f"{total[-1]:.4f} ({mean:.4f})"
