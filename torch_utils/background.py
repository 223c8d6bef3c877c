"""Checkpoints written by a thread, while training changes what is in them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_utils.checkpoint import save_checkpoint


class BackgroundWriter:
    """Copies what is to be written into memory of its own, which it keeps, and writes it from a thread.

    The copy is all that its caller waits for, as long as the thread has written what came before. torch.save() leaves
    Python to others while it writes tensors.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None
        self._memory: dict[tuple[str, ...], Tensor] = {}

    @property
    def busy(self) -> bool:
        """Whether `write` would wait."""
        return self._writing is not None and not self._writing.done()

    @torch.inference_mode()  # memory that is taken in it, during a validation, can be filled in it only
    def write(self, files: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
        """Write checkpoints, one after the other; a tensor that several share is copied once.

        Raises:
            OSError: of what was written before, see `wait`.
        """
        self.wait()
        copying = _Copying(self._memory)
        copies = [(path, copying.of(content, ())) for path, content in files]
        copying.finish()
        self._memory = copying.used
        self._writing = self._thread.submit(_write_all, copies)

    def wait(self) -> None:
        """Wait for the thread.

        Raises:
            OSError: a file could not be written; those after it in its call were not tried.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the thread, see `wait`, and end it."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


class _Copying:
    """Copies nested values; the tensors among them into those of `memory`, where one of the same place fits."""

    def __init__(self, memory: Mapping[tuple[str, ...], Tensor]) -> None:
        self.used: dict[tuple[str, ...], Tensor] = {}
        self._memory = memory
        self._copies: dict[int, Tensor] = {}
        self._sources: list[Tensor] = []
        self._targets: list[Tensor] = []

    def of(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._of_tensor(value, place)
        if isinstance(value, Mapping):
            return {key: self.of(part, (*place, str(key))) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.of(part, (*place, str(i))) for i, part in enumerate(value))
        return value

    def finish(self) -> None:
        """Fill the copies, and wait for GPUs that do."""
        for source, target in zip(self._sources, self._targets, strict=True):
            target.copy_(source, non_blocking=True)
        for device in {source.device for source in self._sources if source.is_cuda}:
            torch.cuda.synchronize(device)

    def _of_tensor(self, tensor: Tensor, place: tuple[str, ...]) -> Tensor:
        if id(tensor) not in self._copies:
            source = tensor.detach()
            target = self._memory.get(place)
            if target is None or (target.shape, target.dtype, target.stride()) != _form(source):
                target = torch.empty_strided(
                    source.shape, source.stride(), dtype=source.dtype, pin_memory=source.is_cuda
                )
            self.used[place] = self._copies[id(tensor)] = target
            self._sources.append(source)
            self._targets.append(target)
        return self._copies[id(tensor)]


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype, tuple[int, ...]]:
    return tensor.shape, tensor.dtype, tensor.stride()


def _write_all(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    for path, content in files:
        save_checkpoint(path, content)
