"""Images kept as the network's size wants them, all or the last ones, in memory that workers share.

Each is put in when it is first made; as long as it is kept nobody decodes it again. What is taken out is what was put
in, to the last bit: whether there is a cache changes nothing but the speed.
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

_SHARE = (
    0.25  # of the free memory that --cache auto takes at most: the rest is for training, and for other files' pages
)
_GIB = 1 << 30


class ImageCache:
    """uint8 images of known sizes, one after the other in a mapped file, behind a byte each: is it there?

    All workers and all processes of a machine share it.

    Args:
        path: a file of cache_size(sizes) bytes, zero at first; see `make_cache_files`.
        sizes: (N, 2) height and width of every image.
    """

    def __init__(self, path: str, sizes: np.ndarray) -> None:
        self._path, self._sizes = path, sizes.astype(np.int32)
        self._offsets = len(sizes) + np.concatenate([[0], np.cumsum(self._sizes.prod(1, dtype=np.int64) * 3)])
        self._bytes = np.memmap(path, np.uint8, "r+", shape=(int(self._offsets[-1]),)).view(np.ndarray)

    def __reduce__(self) -> tuple[type, tuple[str, np.ndarray]]:
        return ImageCache, (self._path, self._sizes)  # a memmap itself would be copied

    def get(self, i: int, place: int | None = None) -> np.ndarray | None:  # noqa: ARG002 - as RecentImages
        """(H, W, 3) uint8, not to be written to; None if it was not put in yet."""
        return _read_only(self._pixels(i)) if self._bytes[i] else None

    def put(self, i: int, image: np.ndarray, place: int | None = None) -> None:  # noqa: ARG002
        """Keep an image. Two workers may do so at once: they write the same."""
        self._pixels(i)[:] = image
        self._bytes[i] = 1

    def _pixels(self, i: int) -> np.ndarray:
        start, end = self._offsets[i : i + 2].tolist()
        return self._bytes[start:end].reshape(*self._sizes[i].tolist(), 3)


class RecentImages:
    """The uint8 images of the last places of an order, in memory that the workers of one loader share.

    A place takes the memory of the one `places` before it. That may not happen while somebody reads there: `places` is
    as many as a sample reaches back and workers are ahead of each other, and an iteration begins when those before it
    have ended. Images without a place are not kept.

    Args:
        places: how many.
        sizes: (N, 2) height and width of every image.
    """

    def __init__(self, places: int, sizes: np.ndarray) -> None:
        self._places, self._sizes = places, sizes.astype(np.int32)
        self._length = int(sizes.prod(1, dtype=np.int64).max()) * 3
        self._block = SharedBlock(recent_size(places, sizes))

    def get(self, i: int, place: int | None = None) -> np.ndarray | None:
        """(H, W, 3) uint8, not to be written to; None if it is not there."""
        if place is None or self._there()[place % self._places] != i + 1:
            return None
        return _read_only(self._pixels(i, place))

    def put(self, i: int, image: np.ndarray, place: int | None = None) -> None:
        """Keep an image until others have taken its place. Two workers may do so at once: they write the same."""
        if place is None:
            return
        there, slot = self._there(), place % self._places
        there[slot] = 0  # who is ended while it writes leaves no image half another's
        self._pixels(i, place)[:] = image
        there[slot] = i + 1

    def _there(self) -> np.ndarray:
        """(places,) int64: which image, counted from 1."""
        return self._block.array[: 8 * self._places].view(np.int64)

    def _pixels(self, i: int, place: int) -> np.ndarray:
        height, width = self._sizes[i].tolist()
        start = 8 * self._places + place % self._places * self._length
        return self._block.array[start : start + height * width * 3].reshape(height, width, 3)


def _read_only(pixels: np.ndarray) -> np.ndarray:
    pixels.flags.writeable = False
    return pixels


def recent_size(places: int, sizes: np.ndarray) -> int:
    """Bytes of RecentImages."""
    return places * (8 + int(sizes.prod(1, dtype=np.int64).max()) * 3)


def cache_size(sizes: np.ndarray) -> int:
    """Bytes of a cache for images of these sizes, (N, 2)."""
    return len(sizes) + int(sizes.prod(1, dtype=np.int64).sum()) * 3


def worth_keeping(size: int) -> bool:
    """Whether --cache auto takes so many bytes."""
    return size <= _SHARE * free_memory()


def make_cache_files(kind: str, needs: Sequence[int], folder: Path) -> tuple[list[str | None], str]:
    """Files to keep images in, while this process lives; other processes of the machine open them by their paths.

    Args:
        kind: of CACHES in utils/cli/train_options.py.
        needs: bytes of each.
        folder: of the run; files on disk lie there, without a name where the system can do that.

    Returns:
        A path for each of `needs`, None for those that are not kept, and in words what was decided and why.

    Raises:
        UserError: there is too little memory or disk for what was asked for.
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
            return [
                _on_disk(need, folder) for need in needs
            ], f"Resized images are kept on disk once made, up to {size}"
        except OSError as error:
            raise UserError(f"--cache disk: {folder}: {error.strerror}: --cache off") from None
    of_memory = f"of {memory / _GIB:.2f} GiB free memory"
    if kind == "ram" and total > memory:
        raise UserError(f"--cache ram needs {size} {of_memory}: --cache disk or off, or a smaller --imgsz")
    if kind == "auto" and total > _SHARE * memory:
        return [None] * len(needs), f"Resized images are not kept: {size} {of_memory} (--cache ram or disk would)"
    return [
        _in_memory(need) for need in needs
    ], f"Resized images are kept in memory once made, up to {size} {of_memory}"


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
    os.unlink(name)  # it is gone when the last process that has it open is, however that ends
    os.posix_fallocate(file, 0, size)  # a disk that fills up later would end the process with SIGBUS
    return f"/proc/{os.getpid()}/fd/{file}"


def _temporary(size: int, folder: Path) -> str:
    file, name = tempfile.mkstemp(prefix=".images.", dir=folder)
    os.truncate(name, size)
    os.close(file)
    atexit.register(Path(name).unlink, missing_ok=True)
    return name
