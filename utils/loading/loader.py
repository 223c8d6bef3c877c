"""Batches made by worker processes in a ring of shared memory slots.

A worker writes images straight into a slot, and only a small message goes to the main process: no memory is mapped,
touched for the first time or copied there per batch. The slots of a run on a GPU are page-locked. Workers live as long
as the loader.
"""

import atexit
import logging
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch

from utils.errors import UserError
from utils.loading.batch import Batch, block_size, collate
from utils.loading.sample import Sample
from utils.loading.shared_memory import SharedBlock
from utils.machine import keep_freed_memory

log = logging.getLogger(__name__)

_AHEAD = 2  # batches that a worker has before it, so that it works on while the main process is in a step
_IN_USE = 3  # slots of batches that were handed out: one in work, two whose copy to a GPU may not have ended
_PARENT_CHECK = 5.0  # s between two looks of an idle worker whether the main process lives
_GRACE = 5.0  # s for a worker that was lost to end
_MAINS = ("SIGINT", "SIGTERM", "SIGUSR1")  # reach every process: the main one saves its run first and ends the others


class Samples(Protocol):
    """A data set."""

    def __getitem__(self, key: Any) -> Sample: ...


class Batches(Protocol):
    """Lists of keys; what they are may change from one iteration to the next."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[Any]]: ...


class LoaderError(UserError):
    """A worker ended before its work was done."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    waiting: deque[int] = field(default_factory=deque)  # steps that it has been given, in order


class Loader:
    """Iterates over the batches of a data set.

    A batch's images lie in a slot of the ring: the batch is good until the next but one is asked for. Keep a clone() of
    what has to live longer.

    Args:
        dataset: gives a Sample for every key; a UserError of it is raised by the iteration.
        batches: keys of every batch.
        largest: images, height and width of the largest batch that gets a slot; one beyond goes through a pipe, slowly.
        workers: processes; 0 for none, and then every batch has memory of its own.
        device: where the batches go.
        told: faults of images that were logged; loaders of the same images share it.

    Attributes:
        waited: s that iterations have waited for batches to be made. The time that an iteration takes is more where a
            GPU is behind: slots are filled again only when it has done with them.
    """

    def __init__(
        self,
        dataset: Samples,
        batches: Batches,
        *,
        largest: tuple[int, int, int],
        workers: int,
        device: torch.device,
        reported_faults: set[str] | None = None,
    ) -> None:
        self.dataset, self.batches = dataset, batches
        self._told = set() if reported_faults is None else reported_faults
        self._on_gpu = device.type == "cuda"
        self._slots = max_batches_in_flight(workers)
        self._slot_bytes = -(-block_size(*largest) // mmap.PAGESIZE) * mmap.PAGESIZE  # no two slots lock one page
        self._count = workers
        self._workers: list[_Worker] = []
        self._ring: SharedBlock | None = None
        self._tried: set[int] = set()  # slots that are page-locked, or cannot be
        self._handed_out: deque[tuple[int, Any]] = deque()  # slots, and when copies of them have ended
        self._iteration = 0
        self.data_wait_seconds = 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._from_workers() if self._count else self._from_here()
        for batch in batches:
            self.log_faults(batch.faults)
            yield batch

    @property
    def faults(self) -> frozenset[str]:
        """What was wrong with images so far."""
        return frozenset(self._told)

    def log_faults(self, faults: Iterable[str]) -> None:
        """Log those that were not yet."""
        for fault in faults:
            if fault not in self._told:
                self._told.add(fault)
                log.warning("%s; it is left out", fault)

    def close(self) -> None:
        """End the workers."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()  # workers that were started later hold the pipe open; SIGTERM is ignored
        for worker in workers:
            worker.process.join()

    def _from_here(self) -> Iterator[Batch]:
        for keys in self.batches:
            with self._waiting():
                batch = collate([self.dataset[key] for key in keys])
            yield batch.pin_memory() if self._on_gpu else batch

    def _from_workers(self) -> Iterator[Batch]:
        self._start()
        self._iteration += 1
        iteration, in_use = self._iteration, {slot for slot, _ in self._handed_out}
        free = deque(slot for slot in range(self._slots) if slot not in in_use)
        keys, step = enumerate(self.batches), 0
        slot_of: dict[int, int] = {}
        done: dict[int, Batch] = {}
        while True:
            while free and (worker := self._idle()) and (following := next(keys, None)):
                slot_of[following[0]] = free.popleft()
                self._give(worker, following[0], slot_of[following[0]], following[1])
            if not slot_of:
                return
            with self._waiting():
                while step not in done:
                    done.update(self._receive(slot_of))
            slot, batch = slot_of.pop(step), done.pop(step)
            while len(self._handed_out) >= _IN_USE - 1:
                before, copied = self._handed_out.popleft()
                if copied is not None:
                    copied.synchronize()
                free.append(before)
            self._handed_out.append((slot, None))
            try:
                yield batch
            finally:  # where the iteration is left in the middle too
                if iteration == self._iteration:
                    self._handed_out[-1] = slot, self._copied()
            if iteration != self._iteration:
                raise RuntimeError("another iteration over this loader has begun")
            step += 1

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.data_wait_seconds += time.perf_counter() - started

    def _start(self) -> None:
        """Start the workers, or wait for what they still do for an iteration that was left in the middle."""
        if self._ring is None:
            size = self._slots * self._slot_bytes
            try:
                self._ring = SharedBlock(size)
            except OSError as error:
                room = f"{size / (1 << 30):.1f} GiB for batches that are loaded"
                raise UserError(f"no {room} ({error.strerror}): lower --batch or --workers") from None
        context = multiprocessing.get_context()
        while len(self._workers) < self._count:
            ours, theirs = context.Pipe()
            arguments = (self.dataset, self._ring, self._slot_bytes, theirs, ours)
            process = context.Process(target=_work, args=arguments, name=f"loader {len(self._workers)}", daemon=True)
            process.start()
            if not self._workers:  # at exit multiprocessing would wait for them: it knows SIGTERM only
                atexit.register(_close, weakref.ref(self))
            theirs.close()
            self._workers.append(_Worker(process, ours))
        while any(worker.waiting for worker in self._workers):
            self._receive(None)

    def _idle(self) -> _Worker | None:
        """The worker with the least before it, if it may have more."""
        worker = min(self._workers, key=lambda worker: len(worker.waiting))
        return worker if len(worker.waiting) < _AHEAD else None

    def _give(self, worker: _Worker, step: int, slot: int, keys: Sequence[Any]) -> None:
        try:
            worker.pipe.send((slot, keys))
        except OSError:
            raise self._lost(worker) from None
        worker.waiting.append(step)

    def _receive(self, slot_of: dict[int, int] | None) -> dict[int, Batch]:
        """What has come, step by step; without `slot_of` it is thrown away."""
        busy = {worker.pipe: worker for worker in self._workers if worker.waiting}
        ends = {worker.process.sentinel: worker for worker in busy.values()}
        ready = wait([*busy, *ends])
        received = {}
        for pipe in (pipe for pipe in busy if pipe in ready):
            try:
                message = pickle.loads(pipe.recv_bytes())  # of our own process
            except (EOFError, OSError):
                raise self._lost(busy[pipe]) from None
            step = busy[pipe].waiting.popleft()
            if slot_of is not None:
                if isinstance(message, UserError):
                    raise message
                received[step] = self._batch(slot_of[step], *message)
        if not received:
            for end in (end for end in ends if end in ready and not ends[end].pipe.poll()):
                raise self._lost(ends[end])
        return received

    def _batch(self, slot: int, shape: tuple[int, ...], parts: dict[str, Any], block: np.ndarray | None) -> Batch:
        if block is not None:
            return Batch.from_parts(torch.from_numpy(block), parts)
        start, length = slot * self._slot_bytes, math.prod(shape)
        if self._on_gpu and slot not in self._tried:
            self._lock(slot)
        images = torch.from_numpy(self._ring.array[start : start + length].reshape(shape))
        return Batch.from_parts(images, parts)

    def _lock(self, slot: int) -> None:
        self._tried.add(slot)
        try:
            self._ring.lock_pages(slot * self._slot_bytes, self._slot_bytes)
        except RuntimeError as error:
            self._tried.update(range(self._slots))
            log.warning("copies of batches to the GPU are slower: their memory cannot be page-locked (%s)", error)
            with suppress(RuntimeError):
                torch.zeros(1, device="cuda")  # or the next kernel would be told of it

    def _copied(self) -> "torch.cuda.Event | None":
        """When this has happened, all that the current stream was asked is done: copies of a slot too."""
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(blocking=True)  # who waits for it leaves the core to the workers
        event.record()
        return event

    def _lost(self, worker: _Worker) -> LoaderError:
        worker.process.join(_GRACE)
        code = worker.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (most often because the memory was full: fewer --workers)" if name == "SIGKILL" else ""
            how = f"was ended by signal {name}{hint}"
        elif code is None:
            how = "does not answer any more"
        else:
            how = f"ended with exit code {code}; its error stands above"
        return LoaderError(f"{worker.process.name}, a process that loads images, {how}")


def max_batches_in_flight(workers: int) -> int:
    """Batches that are in work or in use at once, one after the other in order."""
    return workers * _AHEAD + _IN_USE


def _close(loader: "weakref.ref[Loader]") -> None:
    if (living := loader()) is not None:
        living.close()


def _work(dataset: Samples, ring: SharedBlock, slot_bytes: int, pipe: Connection, other_end: Connection) -> None:
    """Make batches until the main process closes the pipe or is gone."""
    import cv2

    other_end.close()  # a forked process has it too, and would never see the end of the pipe
    for name in _MAINS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)
    keep_freed_memory()
    torch.set_num_threads(1)
    parent = os.getppid()
    while True:
        while not pipe.poll(_PARENT_CHECK):
            if os.getppid() != parent:
                return
        try:
            slot, keys = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            message: Any = _fill(
                ring.array[slot * slot_bytes : (slot + 1) * slot_bytes], [dataset[key] for key in keys]
            )
        except UserError as error:
            message = error
        try:
            pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:
            return


def _fill(slot: np.ndarray, samples: list[Sample]) -> tuple[tuple[int, ...], dict[str, Any], np.ndarray | None]:
    """Shape of the block of images, the rest of the batch, and the block itself if it is too large for the slot."""
    height, width = (max(sample.image.shape[side] for sample in samples) for side in (0, 1))
    fits = block_size(len(samples), height, width) <= len(slot)
    batch = collate(samples, into=slot if fits else None)
    return tuple(batch.images.shape), batch.parts(), None if fits else batch.images.numpy()
