"""Images kept as the network's size wants them, in memory that all workers and all processes of a machine share.

Each is put in when it is first made; from then on nobody decodes it again. What is taken out is what was put in, to the
last bit: whether there is a cache changes nothing but the speed.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.machine import free_memory

_SHARE = (
    0.25  # of the free memory that --cache auto takes at most: the rest is for training, and for other files' pages
)
_GIB = 1 << 30


class ImageCache:
    """uint8 images of known sizes, one after the other in a mapped file, behind a byte each: is it there?

    Args:
        path: a file of cache_size(sizes) bytes, zero at first; see `make_cache_files`.
        sizes: (N, 2) height and width of every image.
    """

    def __init__(self, path: str, sizes: np.ndarray) -> None:
        self._path, self._sizes = path, sizes.astype(np.int32)
        self._offsets = len(sizes) + np.concatenate([[0], np.cumsum(self._sizes.prod(1, dtype=np.int64) * 3)])
        self._bytes = np.memmap(path, np.uint8, "r+", shape=(int(self._offsets[-1]),))

    def __reduce__(self) -> tuple[type, tuple[str, np.ndarray]]:
        return ImageCache, (self._path, self._sizes)  # a memmap itself would be copied

    def get(self, i: int) -> np.ndarray | None:
        """(H, W, 3) uint8, not to be written to; None if it was not put in yet."""
        return self._place(i) if self._bytes[i] else None

    def put(self, i: int, image: np.ndarray) -> None:
        """Keep an image. Two workers may do so at once: they write the same."""
        place = self._place(i)
        place.flags.writeable = True
        place[:] = image
        self._bytes[i] = 1

    def _place(self, i: int) -> np.ndarray:
        view = (
            self._bytes[self._offsets[i] : self._offsets[i + 1]].reshape(*self._sizes[i].tolist(), 3).view(np.ndarray)
        )
        view.flags.writeable = False
        return view


def cache_size(sizes: np.ndarray) -> int:
    """Bytes of a cache for images of these sizes, (N, 2)."""
    return len(sizes) + int(sizes.prod(1, dtype=np.int64).sum()) * 3


def make_cache_files(kind: str, needs: Sequence[int], folder: Path) -> tuple[list[str | None], str]:
    """Files to keep images in, while this process lives; other processes of the machine open them by their paths.

    Args:
        kind: of CACHES in utils/train_options.py.
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
