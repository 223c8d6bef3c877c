"""What a video is here: frames with their moments, and the facts of where they come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.errors import DataError

MAX_PIXELS = 2**26  # of a frame: 8192 x 8192; what claims to have more is taken for an attack on the memory
DEFAULT_RATE = Fraction(30)  # frames a second of what does not say its own
_HIGHEST_RATE = 1000  # frames a second; headers that say more are wrong


class VideoError(DataError):
    """A video cannot be opened, or ends before its end; the message starts with its name."""


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    number: int  # from 0
    seconds: float  # since the video's start; grows from frame to frame
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read."""

    name: str  # in messages; without passwords
    stem: str  # of the file to write
    height: int  # px, of every frame, as shown: a video of a telephone held upright is higher than wide
    width: int
    rate: Fraction  # frames a second; of a variable rate the mean
    length: int | None = None  # number of frames, where it is known
    is_live: bool = False  # does not wait: what is not read in time is lost
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel / its height
    file: Path | None = None  # that it is, if it is one; the sound is in it

    def __str__(self) -> str:
        length = "live" if self.is_live else f"{self.length} frames" if self.length else "of unknown length"
        return f"{self.name}: {self.width} x {self.height} px, {float(self.rate):.6g} frames a second, {length}"

    @property
    def frame_bytes(self) -> int:
        """Of one decoded frame."""
        return self.height * self.width * 3


class VideoSource(ABC):
    """A video to read once, from its start; used by one thread at a time."""

    info: VideoInfo

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Every frame, each of the facts' size.

        Raises:
            VideoError: it ends before its end; every frame before that was given.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files, devices and connections."""

    def stop_waiting(self) -> None:  # noqa: B027 - most never wait
        """End `frames` soon, also where it waits for somebody; any thread may ask."""


def check_size(name: str, height: int, width: int) -> None:
    """VideoError for frames that no memory should be taken for."""
    if height < 1 or width < 1:
        raise VideoError(f"{name}: there are no pictures in it")
    if height * width > MAX_PIXELS:
        raise VideoError(f"{name}: frames of {width} x {height} px are too large (at most {MAX_PIXELS} px): reduce it")


def plausible_rate(rate: Fraction | float | None) -> Fraction | None:
    """Frames a second as a header says them; None for what cannot be one."""
    if rate is None or not 0 < rate <= _HIGHEST_RATE:  # NaN is not
        return None
    return Fraction(rate).limit_denominator(1001)  # 30000/1001 is the largest in use


class Clock:
    """Makes moments that grow by a sane step of any that a video claims.

    Args:
        rate: frames a second, for frames that do not say when they are.
    """

    LONGEST_GAP = 86_400.0  # s between two frames
    SHORTEST_GAP = 1e-4  # s

    def __init__(self, rate: Fraction) -> None:
        self._step = float(1 / rate)
        self._last: float | None = None

    def seconds(self, claimed: float | None) -> float:
        """The moment of the next frame."""
        if self._last is None:
            first_is_sane = claimed is not None and 0 <= claimed <= self.LONGEST_GAP
            self._last = claimed if first_is_sane else 0.0
        elif claimed is not None and self.SHORTEST_GAP <= claimed - self._last <= self.LONGEST_GAP:
            self._last = claimed
        else:
            self._last += self._step
        return self._last
