"""Caches of images resized for the network, all of them or the most recent, in memory shared by workers.

An image is stored when it is first decoded, and returned unchanged to the last bit: a cache changes only the speed.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.loading.shared_memory import SharedBlock
from utils.machine import free_memory

_SHARE = 0.25  # of free memory, the most that --cache auto takes: the rest is for training and the page cache
_GIB = 1 << 30


class ImageCache:
    """Cache of uint8 images of known sizes in a memory-mapped file: one flag byte per image, then the pixels.

    All workers and all processes of a machine share it.

    Args:
        path: a file of cache_size(sizes) zero bytes, see `make_cache_files`.
        sizes: (N, 2) height and width of every image.
    """

    def __init__(self, path: str, sizes: np.ndarray) -> None:
        self._path, self._sizes = path, sizes.astype(np.int32)
        self._offsets = len(sizes) + np.concatenate([[0], np.cumsum(self._sizes.prod(1, dtype=np.int64) * 3)])
        self._bytes = np.memmap(path, np.uint8, "r+", shape=(int(self._offsets[-1]),)).view(np.ndarray)

    def __reduce__(self) -> tuple[type, tuple[str, np.ndarray]]:
        return ImageCache, (self._path, self._sizes)  # pickling a memmap would copy it

    def get(self, i: int, position: int | None = None) -> np.ndarray | None:  # noqa: ARG002 - as RecentImages
        """Return a read-only (H, W, 3) uint8 image, or None if it is not stored yet."""
        return _read_only(self._pixels(i)) if self._bytes[i] else None

    def put(self, i: int, image: np.ndarray, position: int | None = None) -> None:  # noqa: ARG002
        """Store an image. Two workers may do so at once: they write the same bytes."""
        self._pixels(i)[:] = image
        self._bytes[i] = 1

    def _pixels(self, i: int) -> np.ndarray:
        start, end = self._offsets[i : i + 2].tolist()
        return self._bytes[start:end].reshape(*self._sizes[i].tolist(), 3)


class RecentImages:
    """Ring buffer of the uint8 images of the last samples, in memory shared by the workers of one loader.

    A sample's image overwrites that of the sample `slots` before it. No worker may read that one any more: `slots` must
    cover the history of a sample plus the samples that workers are ahead of each other, and an iteration must begin
    after earlier ones have ended. Images without a position are not stored.

    Args:
        slots: number of images.
        sizes: (N, 2) height and width of every image.
    """

    def __init__(self, slots: int, sizes: np.ndarray) -> None:
        self._slots, self._sizes = slots, sizes.astype(np.int32)
        self._length = int(sizes.prod(1, dtype=np.int64).max()) * 3
        self._block = SharedBlock(recent_images_size(slots, sizes))

    def get(self, i: int, position: int | None = None) -> np.ndarray | None:
        """Return a read-only (H, W, 3) uint8 image, or None if it is not stored (any more)."""
        if position is None or self._owners()[position % self._slots] != i + 1:
            return None
        return _read_only(self._pixels(i, position))

    def put(self, i: int, image: np.ndarray, position: int | None = None) -> None:
        """Store an image until its slot is reused. Two workers may do so at once: they write the same bytes."""
        if position is None:
            return
        owners, slot = self._owners(), position % self._slots
        owners[slot] = 0  # a worker killed while writing leaves the slot marked as empty
        self._pixels(i, position)[:] = image
        owners[slot] = i + 1

    def _owners(self) -> np.ndarray:
        """(slots,) int64: the image stored in each slot, counted from 1; 0 for none."""
        return self._block.array[: 8 * self._slots].view(np.int64)

    def _pixels(self, i: int, position: int) -> np.ndarray:
        height, width = self._sizes[i].tolist()
        start = 8 * self._slots + position % self._slots * self._length
        return self._block.array[start : start + height * width * 3].reshape(height, width, 3)


def _read_only(pixels: np.ndarray) -> np.ndarray:
    pixels.flags.writeable = False
    return pixels


def recent_images_size(slots: int, sizes: np.ndarray) -> int:
    """Size of RecentImages in bytes."""
    return slots * (8 + int(sizes.prod(1, dtype=np.int64).max()) * 3)


def cache_size(sizes: np.ndarray) -> int:
    """Size in bytes of an ImageCache for images of these heights and widths, (N, 2)."""
    return len(sizes) + int(sizes.prod(1, dtype=np.int64).sum()) * 3


def fits_auto_cache(size: int) -> bool:
    """Return True if --cache auto uses a cache of this size in bytes."""
    return size <= _SHARE * free_memory()


def make_cache_files(kind: str, needs: Sequence[int], folder: Path) -> tuple[list[str | None], str]:
    """Make cache files, which last as long as this process; other processes of the machine open them by path.

    Args:
        kind: of CACHES in utils/cli/train_options.py.
        needs: size of each file in bytes.
        folder: of the run; files on disk are made there, unlinked at once where the system allows it.

    Returns:
        A path for each of `needs`, or None if it is not cached; and a log line with the decision and its reason.

    Raises:
        UserError: the memory or disk space is too small for the requested kind.
    """
    total, memory = sum(needs), free_memory()
    size = f"{total / _GIB:.2f} GiB"
    if kind == "off":
        return [None] * len(needs), "Resized images are not kept (--cache off)"
    if kind == "disk":
        try:
            free = shutil.disk_usage(folder).free
            if total > free:
                raise UserError(f"--cache disk needs {size} in {folder}, which has {free / _GIB:.2f} GiB: --cache off")
            paths = [_on_disk(need, folder) for need in needs]
        except OSError as error:
            raise UserError(f"--cache disk: {folder}: {error.strerror}: --cache off") from None
        return paths, f"Resized images are kept on disk once made, up to {size}"
    of_memory = f"of {memory / _GIB:.2f} GiB free memory"
    if kind == "ram" and total > memory:
        raise UserError(f"--cache ram needs {size} {of_memory}: --cache disk or off, or a smaller --imgsz")
    if kind == "auto" and total > _SHARE * memory:
        return [None] * len(needs), f"Resized images are not kept: {size} {of_memory} (--cache ram or disk would)"
    paths = [_in_memory(need) for need in needs]
    return paths, f"Resized images are kept in memory once made, up to {size} {of_memory}"


def _in_memory(size: int) -> str:
    if not hasattr(os, "memfd_create"):  # not Linux
        return _temporary(size, Path(tempfile.gettempdir()))
    file = os.memfd_create("images")  # not in /dev/shm, which is 64 MB in most containers
    os.ftruncate(file, size)
    return f"/proc/{os.getpid()}/fd/{file}"


def _on_disk(size: int, folder: Path) -> str:
    if not Path("/proc/self/fd").is_dir():
        return _temporary(size, folder)
    file, name = tempfile.mkstemp(prefix=".images.", dir=folder)
    os.unlink(name)  # the file disappears with the last process that has it open, even a killed one
    os.posix_fallocate(file, 0, size)  # a disk that fills up later would kill the process with SIGBUS
    return f"/proc/{os.getpid()}/fd/{file}"


def _temporary(size: int, folder: Path) -> str:
    file, name = tempfile.mkstemp(prefix=".images.", dir=folder)
    os.truncate(name, size)
    os.close(file)
    atexit.register(Path(name).unlink, missing_ok=True)
    return name
