"""Load batches by worker processes that write them into a ring of shared memory slots.

A worker writes images directly into a slot and sends only a small message to the main process, which so neither
allocates nor copies memory per batch. On a GPU the slots are page-locked. Workers live as long as the loader.
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

_AHEAD = 2  # batches assigned to a worker, so that it continues while the main process is in a step
_IN_USE = 3  # slots of yielded batches: one in the current step, two whose copies to a GPU may not have ended
_PARENT_CHECK = 5.0  # s between checks of an idle worker that the main process is alive
_GRACE = 5.0  # s for a lost worker to exit
_IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # sent to all processes: the main one saves its run, then ends us


class KeyedDataset(Protocol):
    """A data set that returns a Sample for a key."""

    def __getitem__(self, key: Any) -> Sample: ...


class KeyBatches(Protocol):
    """Batches of keys, which may differ between iterations."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[Any]]: ...


class LoaderError(UserError):
    """A worker process ended unexpectedly."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    waiting: deque[int] = field(default_factory=deque)  # assigned steps, in order


class Loader:
    """Iterates over the batches of a data set.

    A batch's images lie in a slot of the ring and are valid until the second next batch is requested. Use clone() to
    keep a batch longer.

    Args:
        dataset: returns a Sample for every key; its UserErrors are raised by the iteration.
        batches: keys of every batch.
        largest: images, height and width of the largest batch that fits a slot; a larger one is sent through a pipe,
            which is slow.
        workers: number of processes; 0 loads in the main process, and every batch has its own memory.
        device: device that the batches will be copied to.
        reported_faults: faults of images that are logged already; loaders of the same images share it.

    Attributes:
        data_wait_seconds: time that iterations have waited for workers. Waiting for a GPU to finish with a slot is not
            included.
    """

    def __init__(
        self,
        dataset: KeyedDataset,
        batches: KeyBatches,
        *,
        largest: tuple[int, int, int],
        workers: int,
        device: torch.device,
        reported_faults: set[str] | None = None,
    ) -> None:
        self.dataset, self.batches = dataset, batches
        self._reported = set() if reported_faults is None else reported_faults
        self._on_gpu = device.type == "cuda"
        self._slots = max_batches_in_flight(workers)
        self._slot_bytes = -(-block_size(*largest) // mmap.PAGESIZE) * mmap.PAGESIZE  # no two slots lock one page
        self._count = workers
        self._workers: list[_Worker] = []
        self._ring: SharedBlock | None = None
        self._lock_tried: set[int] = set()  # slots that are page-locked, or cannot be
        self._handed_out: deque[tuple[int, Any]] = deque()  # slots, and events that mark the end of their copies
        self._iteration = 0
        self.data_wait_seconds = 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._load_by_workers() if self._count else self._load_here()
        for batch in batches:
            self.log_faults(batch.faults)
            yield batch

    @property
    def faults(self) -> frozenset[str]:
        """Messages about damaged images so far."""
        return frozenset(self._reported)

    def log_faults(self, faults: Iterable[str]) -> None:
        """Log the faults that have not been logged yet."""
        for fault in faults:
            if fault not in self._reported:
                self._reported.add(fault)
                log.warning("%s; it is left out", fault)

    def close(self) -> None:
        """Stop the workers."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()  # later workers keep the pipe open, and SIGTERM is ignored
        for worker in workers:
            worker.process.join()

    def _load_here(self) -> Iterator[Batch]:
        for keys in self.batches:
            with self._waiting():
                batch = collate([self.dataset[key] for key in keys])
            yield batch.pin_memory() if self._on_gpu else batch

    def _load_by_workers(self) -> Iterator[Batch]:
        self._start()
        self._iteration += 1
        iteration, in_use = self._iteration, {slot for slot, _ in self._handed_out}
        free = deque(slot for slot in range(self._slots) if slot not in in_use)
        keys, step = enumerate(self.batches), 0
        slot_of: dict[int, int] = {}
        done: dict[int, Batch] = {}
        while True:
            while free and (worker := self._available_worker()) and (task := next(keys, None)):
                slot_of[task[0]] = free.popleft()
                self._assign(worker, task[0], slot_of[task[0]], task[1])
            if not slot_of:
                return
            with self._waiting():
                while step not in done:
                    done.update(self._receive(slot_of))
            slot, batch = slot_of.pop(step), done.pop(step)
            while len(self._handed_out) >= _IN_USE - 1:
                oldest, copied = self._handed_out.popleft()
                if copied is not None:
                    copied.synchronize()
                free.append(oldest)
            self._handed_out.append((slot, None))
            try:
                yield batch
            finally:  # also if the iteration is left early
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
        """Start the workers, or wait until they finish the batches of an iteration that was left early."""
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
            if not self._workers:  # at exit multiprocessing would send SIGTERM, which they ignore, and wait
                atexit.register(_close, weakref.ref(self))
            theirs.close()
            self._workers.append(_Worker(process, ours))
        while any(worker.waiting for worker in self._workers):
            self._receive(None)

    def _available_worker(self) -> _Worker | None:
        """Worker with the fewest assigned batches, if it can take another."""
        worker = min(self._workers, key=lambda worker: len(worker.waiting))
        return worker if len(worker.waiting) < _AHEAD else None

    def _assign(self, worker: _Worker, step: int, slot: int, keys: Sequence[Any]) -> None:
        try:
            worker.pipe.send((slot, keys))
        except OSError:
            raise self._lost(worker) from None
        worker.waiting.append(step)

    def _receive(self, slot_of: dict[int, int] | None) -> dict[int, Batch]:
        """Batches that have arrived, by step; discarded if `slot_of` is None."""
        busy = {worker.pipe: worker for worker in self._workers if worker.waiting}
        ends = {worker.process.sentinel: worker for worker in busy.values()}
        ready = wait([*busy, *ends])
        received = {}
        for pipe in (pipe for pipe in busy if pipe in ready):
            try:
                message = pickle.loads(pipe.recv_bytes())  # sent by our own worker
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
        if self._on_gpu and slot not in self._lock_tried:
            self._lock(slot)
        images = torch.from_numpy(self._ring.array[start : start + length].reshape(shape))
        return Batch.from_parts(images, parts)

    def _lock(self, slot: int) -> None:
        self._lock_tried.add(slot)
        try:
            self._ring.lock_pages(slot * self._slot_bytes, self._slot_bytes)
        except RuntimeError as error:
            self._lock_tried.update(range(self._slots))
            log.warning("copies of batches to the GPU are slower: their memory cannot be page-locked (%s)", error)
            with suppress(RuntimeError):
                torch.zeros(1, device="cuda")  # clears the error, which the next kernel would report

    def _copied(self) -> "torch.cuda.Event | None":
        """Event that marks the end of all work queued on the current stream, copies of a slot included."""
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(blocking=True)  # waiting for it leaves the core to the workers
        event.record()
        return event

    def _lost(self, worker: _Worker) -> LoaderError:
        worker.process.join(_GRACE)
        code = worker.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (most often because the memory was full: fewer --workers)" if name == "SIGKILL" else ""
            reason = f"was ended by signal {name}{hint}"
        elif code is None:
            reason = "does not respond"
        else:
            reason = f"ended with exit code {code}; see its error above"
        return LoaderError(f"{worker.process.name}, a process that loads images, {reason}")


def max_batches_in_flight(workers: int) -> int:
    """Largest number of consecutive batches that are being loaded or used at the same time."""
    return workers * _AHEAD + _IN_USE


def _close(loader: "weakref.ref[Loader]") -> None:
    if (instance := loader()) is not None:
        instance.close()


def _work(dataset: KeyedDataset, ring: SharedBlock, slot_bytes: int, pipe: Connection, other_end: Connection) -> None:
    """Load batches until the main process closes the pipe or has ended."""
    import cv2

    other_end.close()  # inherited by fork: with it open, the end of the pipe would never be seen
    for name in _IGNORED_SIGNALS:
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
    """Write samples into a slot.

    Returns:
        Shape of the block of images, the other fields of the batch, and the block itself if it does not fit the slot.
    """
    height, width = (max(sample.image.shape[side] for sample in samples) for side in (0, 1))
    fits = block_size(len(samples), height, width) <= len(slot)
    batch = collate(samples, into=slot if fits else None)
    return tuple(batch.images.shape), batch.parts(), None if fits else batch.images.numpy()
