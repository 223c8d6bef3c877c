"""Losses that are not finite: log them with their images, and stop the run after too many in a row."""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from torch_utils.distributed import Processes, all_gather, broadcast_from_main
from torch_utils.training.training_state import LOSS_TERMS
from utils.errors import UserError
from utils.labels.index import LabelIndex
from utils.loading.sample import DAMAGED

_CHECK_INTERVAL = 50  # updates between two reads of a GPU's flags, which wait for it; the same in all processes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """An update, as the log describes it if it was skipped."""

    epoch: int
    step: int  # its last batch
    losses: Tensor  # (batches, 4) LOSS_TERMS on the device
    images: list[Tensor]  # ids, batch by batch
    skipped: Tensor  # () bool on the device, the same in all processes


@dataclass
class NonFiniteGuard:
    """Logs every skipped update, and ends the run after more than `limit` in a row.

    Args:
        index: gives the names of the images.
        hint: the remedy, at the end of the error message.

    Attributes:
        in_a_row: updates skipped since the last that was not; the weights may be unusable after the first of them.
    """

    index: LabelIndex
    processes: Processes
    limit: int
    hint: str
    in_a_row: int = field(default=0, init=False)
    _unread: list[Update] = field(default_factory=list, init=False)

    def note(self, update: Update, *, last: bool) -> None:
        """Add an update; check the flags if it is the last of the epoch, or every 50 updates on a GPU.

        Raises:
            UserError: see `check`.
        """
        self._unread.append(update)
        if last or len(self._unread) >= _CHECK_INTERVAL or update.skipped.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Read the flags of the updates since the last check; every process calls this at the same steps.

        Raises:
            UserError: too many were skipped; raised in the main process, the others exit silently.
        """
        if not self._unread:
            return
        flags = torch.stack([update.skipped for update in self._unread]).tolist()
        for update, skipped in zip(self._unread, flags, strict=True):
            self.in_a_row = self.in_a_row + 1 if skipped else 0
            if skipped:
                self._log(update)
        self._unread.clear()

    def check_end(self) -> None:
        """Check that the run did not end with skipped updates.

        Raises:
            UserError: its last update was skipped; raised in the main process, the others exit silently.
        """
        if self.in_a_row:
            message = f"the last {self.in_a_row} updates of the run were left out, since their loss was not finite"
            broadcast_from_main(self.processes, partial(_stop, f"{message}. {self.hint}"))

    def _log(self, update: Update) -> None:
        parts = all_gather(self.processes, (update.losses.tolist(), [ids.tolist() for ids in update.images]))
        batches = [batch for losses, images in parts for batch in zip(losses, images, strict=True)]
        bad = [batch for batch in batches if not torch.tensor(batch[0]).isfinite().all()]
        terms, _ = (bad or batches)[0]
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSS_TERMS, terms, strict=True))
        names = ", ".join(str(self.index.path(i)) for _, ids in bad or batches for i in ids if i != DAMAGED)
        subject = "the loss" if bad else "the gradient of the loss"
        text = f"{subject} is not finite in epoch {update.epoch}, step {update.step}: {values}; images: {names}"
        if self.in_a_row <= self.limit:
            log.warning("%s; the step is left out", text)
            return

        row = f", as in {self.in_a_row - 1} steps before it" if self.in_a_row > 1 else ""
        broadcast_from_main(self.processes, partial(_stop, f"{text}{row} (--max-bad-steps {self.limit}). {self.hint}"))


def _stop(message: str) -> NoReturn:
    raise UserError(message)
