"""Checkpoints written by a thread, while training changes what is in them."""

import logging
import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_utils.checkpoint import save_checkpoint

Files = Sequence[tuple[Path, Mapping[str, Any]]]
log = logging.getLogger(__name__)


class BackgroundWriter:
    """Copies what is to be written into memory of its own, which it keeps, and writes it from a thread.

    Its caller waits for the copies of small things alone. Weights and the like, which are at rest until the next
    update, are copied by the thread, and `copied` has to be called before that update; a GPU copies them in the order
    of its stream, before what it is asked later. torch.save() leaves Python to others while it writes tensors.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None
        self._copied = threading.Event()
        self._copied.set()
        self._memory: dict[tuple[str, ...], Tensor] = {}

    @property
    def busy(self) -> bool:
        """Whether `write` would wait."""
        return self._writing is not None and not self._writing.done()

    @torch.inference_mode()  # memory that is taken in it, during a validation, can be filled in it only
    def write(self, files: Files, stable_tensors: AbstractSet[int] = frozenset()) -> None:
        """Write checkpoints, one after the other; a tensor that several share is copied once.

        Args:
            stable_tensors: addresses (data_ptr) of tensors that do not change before `copied` has returned.

        Raises:
            OSError: neither could what was written before be, nor what is given now.
        """
        failed = None
        try:
            self.wait()
        except OSError as error:
            failed = error
        copying = _Copying(self._memory, stable_tensors)
        copies = [(path, copying.of(content, (path.name,))) for path, content in files]
        copying.fill_now()
        self._memory = copying.used
        self._copied.clear()
        self._writing = self._thread.submit(self._write, copying, copies)
        if failed is not None:
            self.wait()
            log.warning("%s: %s; by now it can be written again", failed.filename, failed.strerror)

    def wait_until_copied(self) -> None:
        """Wait until what is at rest may change."""
        self._copied.wait()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: a file could not be written; those after it in its call were not tried.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait until all is written, see `wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown(wait=False)

    def _write(self, copying: "_Copying", files: Files) -> None:
        try:
            copying.fill_rest()
        finally:
            self._copied.set()
        for path, content in files:
            save_checkpoint(path, content)


class _Copying:
    """Copies nested values; the tensors among them into those of `memory`, where one of the same place fits."""

    def __init__(self, memory: Mapping[tuple[str, ...], Tensor], stable_tensors: AbstractSet[int]) -> None:
        self.used: dict[tuple[str, ...], Tensor] = {}
        self._memory = memory
        self._at_rest = stable_tensors
        self._copies: dict[int, Tensor] = {}
        self._now: list[tuple[Tensor, Tensor]] = []  # target and source
        self._later: list[tuple[Tensor, Tensor]] = []
        self._events: list[torch.cuda.Event] = []

    def of(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._of_tensor(value, place)
        if isinstance(value, Mapping):
            return {key: self.of(part, (*place, str(key))) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.of(part, (*place, str(i))) for i, part in enumerate(value))
        return value

    def fill_now(self) -> None:
        """Fill the copies of what may change soon, and ask GPUs to fill theirs."""
        for target, source in self._now:
            target.copy_(source, non_blocking=True)
        for device in {source.device for _, source in self._now if source.is_cuda}:
            with torch.cuda.device(device):
                self._events.append(torch.cuda.Event())
                self._events[-1].record()

    @torch.inference_mode()
    def fill_rest(self) -> None:
        """Fill the other copies, and wait for GPUs."""
        for target, source in self._later:
            target.copy_(source)
        for event in self._events:
            event.synchronize()

    def _of_tensor(self, tensor: Tensor, place: tuple[str, ...]) -> Tensor:
        if id(tensor) not in self._copies:
            source = tensor.detach()
            target = self._memory.get(place)
            if target is None or _form(target) != _form(source):
                target = torch.empty_strided(
                    source.shape, source.stride(), dtype=source.dtype, pin_memory=source.is_cuda
                )
            self.used[place] = self._copies[id(tensor)] = target
            later = not source.is_cuda and source.data_ptr() in self._at_rest
            (self._later if later else self._now).append((target, source))
        return self._copies[id(tensor)]


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype, tuple[int, ...]]:
    return tensor.shape, tensor.dtype, tensor.stride()
