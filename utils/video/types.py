"""Video types: frames with timestamps, video properties and the interface of video sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.errors import DataError

MAX_PIXELS = 2**26  # of a frame, 8192 x 8192; larger sizes are refused as an attack on the memory
DEFAULT_RATE = Fraction(30)  # frames per second if the video does not state its rate
_HIGHEST_RATE = 1000  # frames per second; higher values in headers are ignored


class VideoError(DataError):
    """A video cannot be opened, or ends prematurely. The message starts with its name."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    number: int  # from 0
    seconds: float  # since the start of the video; strictly increasing
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, known before its frames are read."""

    name: str  # for messages; without passwords
    stem: str  # of the output file
    height: int  # px, of every frame, after rotation
    width: int
    rate: Fraction  # frames per second; the mean of a variable rate
    length: int | None = None  # number of frames, if known
    is_live: bool = False  # frames that are not read in time are lost
    pixel_aspect: Fraction = Fraction(1)  # pixel width / pixel height
    file: Path | None = None  # the video file, if it is one; contains the sound

    def __str__(self) -> str:
        length = "live" if self.is_live else f"{self.length} frames" if self.length else "of unknown length"
        return f"{self.name}: {self.width} x {self.height} px, {float(self.rate):.6g} frames a second, {length}"

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame."""
        return self.height * self.width * 3


class VideoSource(ABC):
    """A video that can be read once, from the start, by one thread at a time."""

    info: VideoInfo

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Iterate over the frames, each of the size in `info`.

        Raises:
            VideoError: the video ends prematurely; all frames before that were yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files, devices and connections."""

    def stop_waiting(self) -> None:  # noqa: B027 - most sources never block
        """Make a blocked `frames` end soon. Thread-safe."""


def check_size(name: str, height: int, width: int) -> None:
    """Raise a VideoError for empty or excessively large frames."""
    if height < 1 or width < 1:
        raise VideoError(f"{name}: frames are empty")
    if height * width > MAX_PIXELS:
        raise VideoError(
            f"{name}: frames of {width} x {height} px are too large (at most {MAX_PIXELS} px): scale it down"
        )


def plausible_rate(rate: Fraction | float | None) -> Fraction | None:
    """Convert the frame rate of a header; None if implausible."""
    if rate is None or not 0 < rate <= _HIGHEST_RATE:  # also for NaN
        return None
    return Fraction(rate).limit_denominator(1001)  # NTSC rates are 30000/1001 and the like


class Clock:
    """Turns the timestamps of a video into strictly increasing ones with plausible steps.

    Args:
        rate: frames per second, for frames without a plausible timestamp.
    """

    LONGEST_GAP = 86_400.0  # s between two frames
    SHORTEST_GAP = 1e-4  # s

    def __init__(self, rate: Fraction) -> None:
        self._step = float(1 / rate)
        self._last: float | None = None

    def seconds(self, claimed: float | None) -> float:
        """Return the timestamp of the next frame in s; `claimed` is the one in the video, if any."""
        if self._last is None:
            first_is_plausible = claimed is not None and 0 <= claimed <= self.LONGEST_GAP
            self._last = claimed if first_is_plausible else 0.0
        elif claimed is not None and self.SHORTEST_GAP <= claimed - self._last <= self.LONGEST_GAP:
            self._last = claimed
        else:
            self._last += self._step
        return self._last
