"""--batch auto: the largest batch that a GPU's memory holds, found by training steps that are then forgotten."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from torch_utils.checkpoint import rng_state, set_rng_state
from torch_utils.distributed import Processes, all_gather
from torch_utils.training.optimization import make_optimizer
from torch_utils.training.precision import Precision
from utils.errors import UserError
from utils.loading.batch import Batch
from utils.loading.size_rule import padded
from utils.machine import out_of_memory_message

_USABLE = 0.85  # of the memory that is free: another image size fragments it, and others may want some
_STEPS = 2  # the first makes the optimizer's state, with which the second has to fit
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LargestSample:
    """The largest image of a training, and the largest number of boxes."""

    height: int  # px, as the network sees it
    width: int
    boxes: int

    def batch(self, images: int) -> Batch:
        """So many of them, of noise; no random number is drawn from torch's own generator."""
        random = torch.Generator().manual_seed(images)
        shape, count = (images, padded(self.height), padded(self.width), 3), images * self.boxes
        sides = torch.tensor([self.width, self.height] * 2)
        corners = torch.rand(count, 2, 2, generator=random).sort(1).values.flatten(1)  # x1 y1 x2 y2 in 0..1
        sizes = torch.tensor([[self.height, self.width]] * images)
        return Batch(
            images=torch.randint(256, shape, dtype=torch.uint8, generator=random),
            sizes=sizes,
            original_sizes=sizes,
            image_ids=torch.arange(images),
            boxes=(corners * (sides - 1) + torch.tensor([0.0, 0.0, 1.0, 1.0])).float(),
            labels=torch.ones(count, dtype=torch.int64),
            counts=torch.full((images,), self.boxes),
        )


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest batch from 1 to `most` that fits, or an eighth less; 0 if none does.

    Args:
        fits: of a batch that fits, all smaller ones do too.
    """
    low, high = 0, 1
    while low < most and fits(high):
        low, high = high, min(2 * high, most)
    while low < most and high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def find_batch(
    model: nn.Module,
    sample: LargestSample,
    precision: Precision,
    processes: Processes,
    *,
    images: int,
    optimizer: str,
    ema: bool,
) -> int:
    """The largest batch whose training steps leave some of the memory free, and the same in all processes.

    Weights, buffers, modes and random numbers are afterwards what they were before.

    Args:
        model: on its device, and without gradients.
        images: of the training, which the batches of all processes together do not exceed.
        optimizer: name of one, see make_optimizer.
        ema: a moving average of the model will lie beside it.

    Raises:
        UserError: not even one image fits.
    """
    with _forgotten(model), _share_of_memory(precision.device):
        trial = _Trial(model, sample, precision, optimizer, copies=int(ema) + int(processes.several))
        own = largest_that_fits(trial.fits, max(1, images // processes.world_size))
        del trial
    batch = min(all_gather(processes, own))
    if batch == 0:
        raise UserError(
            f"--batch auto: not even one image of {sample.width} x {sample.height} px fits into {_USABLE:.0%} of the "
            f"free memory of {precision.device}: lower --imgsz, add --amp, or choose a smaller --model"
        )
    log.info(
        "Batch (--batch auto): %d images a process, of %d x %d px at most; the learning rate stays as it is, and "
        "--scale-lr would fit it to the batch",
        batch, sample.width, sample.height,
    )  # fmt: skip
    return batch


class _Trial:
    """Training steps of a model on noise."""

    def __init__(
        self, model: nn.Module, sample: LargestSample, precision: Precision, optimizer: str, *, copies: int
    ) -> None:
        self.model = model.train()
        self.sample = sample
        self.precision = precision
        self.optimizer = make_optimizer(model, optimizer, lr=0.0)
        # What else a run holds: the moving average, and the gradients on their way between processes.
        self._held = [torch.empty_like(p) for p in model.parameters() for _ in range(copies)]

    def fits(self, images: int) -> bool:
        """Whether memory suffices for such a batch."""
        try:
            self._train(images)
        except (MemoryError, RuntimeError) as error:
            if out_of_memory_message(error) is None:
                raise
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()  # so that no trial finds the pieces of the one before
        return True

    def _train(self, images: int) -> None:
        batch = self.sample.batch(images).to(self.precision.device)
        for _ in range(_STEPS):
            self.optimizer.zero_grad(set_to_none=True)
            with self.precision.autocast():
                loss = sum(self.model(batch).values())
            loss.backward()
            self.optimizer.step()


@contextmanager
def _forgotten(model: nn.Module) -> Iterator[None]:
    """Whatever happens to the model and to random numbers is undone."""
    random, modes = rng_state(), [(module, module.training) for module in model.modules()]
    tensors = list(chain(model.parameters(), model.buffers()))
    kept = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        for parameter in model.parameters():
            parameter.grad = None
        for module, mode in modes:
            module.training = mode
        set_rng_state(random)


@contextmanager
def _share_of_memory(device: torch.device) -> Iterator[None]:
    """A GPU's memory is full when a share of what is free is taken."""
    if device.type != "cuda":
        yield
        return
    free, total = torch.cuda.mem_get_info(device)
    usable = free + torch.cuda.memory_reserved(device)
    torch.cuda.set_per_process_memory_fraction(_USABLE * usable / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
