"""Losses that are not finite: named, counted, and in the end too many."""

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

_LOOK_INTERVAL = 50  # updates between two looks at a GPU's flags, which wait for it; the same in all processes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """What is to be said of an update, should it be left out."""

    epoch: int
    step: int  # its last batch
    losses: Tensor  # (batches, 4) LOSS_TERMS on the device
    images: list[Tensor]  # ids, batch by batch
    is_bad: Tensor  # () bool on the device, the same in all processes


@dataclass
class NonFiniteGuard:
    """Names every update that was left out, and ends the run after more than `limit` in a row.

    Args:
        index: names the images.
        hint: what the message of the end says that one can do.

    Attributes:
        in_a_row: updates left out since the last that was not; weights after the first of them may be of no use.
    """

    index: LabelIndex
    processes: Processes
    limit: int
    hint: str
    in_a_row: int = field(default=0, init=False)
    _unseen: list[Update] = field(default_factory=list, init=False)

    def note(self, update: Update, *, last: bool) -> None:
        """Take in an update, and look if it is time, or the last of the epoch.

        Raises:
            UserError: see `look`.
        """
        self._unseen.append(update)
        if last or len(self._unseen) >= _LOOK_INTERVAL or update.is_bad.device.type == "cpu":
            self.look()

    def look(self) -> None:
        """Look at the updates since the last look; every process does so at the same moments.

        Raises:
            UserError: there were too many, in the main process; the others leave without a word.
        """
        if not self._unseen:
            return
        flags = torch.stack([seen.is_bad for seen in self._unseen]).tolist()
        for seen, is_bad in zip(self._unseen, flags, strict=True):
            self.in_a_row = self.in_a_row + 1 if is_bad else 0
            if is_bad:
                self._tell(seen)
        self._unseen.clear()

    def check_end(self) -> None:
        """Look at what the run has come to.

        Raises:
            UserError: its last update was left out, in the main process; the others leave without a word.
        """
        if self.in_a_row:
            words = f"the last {self.in_a_row} updates of the run were left out, since their loss was not finite"
            broadcast_from_main(self.processes, partial(_stop, f"{words}. {self.hint}"))

    def _tell(self, update: Update) -> None:
        parts = all_gather(self.processes, (update.losses.tolist(), [ids.tolist() for ids in update.images]))
        batches = [batch for losses, images in parts for batch in zip(losses, images, strict=True)]
        bad = [batch for batch in batches if not torch.tensor(batch[0]).isfinite().all()]
        terms, _ = (bad or batches)[0]
        said = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSS_TERMS, terms, strict=True))
        names = ", ".join(str(self.index.path(i)) for _, ids in bad or batches for i in ids if i != DAMAGED)
        what = "the loss" if bad else "the gradient of the loss"
        text = f"{what} is not finite in epoch {update.epoch}, step {update.step}: {said}; images: {names}"
        if self.in_a_row <= self.limit:
            log.warning("%s; the step is left out", text)
            return

        row = f", as in {self.in_a_row - 1} steps before it" if self.in_a_row > 1 else ""
        broadcast_from_main(self.processes, partial(_stop, f"{text}{row} (--max-bad-steps {self.limit}). {self.hint}"))


def _stop(words: str) -> NoReturn:
    raise UserError(words)
