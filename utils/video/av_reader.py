"""Videos that PyAV (FFmpeg) reads: files, pipes and streams."""

import io
import logging
import re
import select
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from utils.video.types import (
    MAX_PIXELS,
    DEFAULT_RATE,
    Clock,
    Frame,
    VideoError,
    VideoInfo,
    VideoSource,
    check_size,
    plausible_rate,
)

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_TIMEOUTS = (10.0, 10.0)  # s to open a stream, and to wait for its next packet
_DURATION = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)")  # of a stream, as Matroska's writers tag it
_SHORT = 1.0  # s that a file may be shorter than its header says
_SHORT_SHARE = 0.05  # of the whole, likewise
# A file that turns out to be a playlist opens nothing else; a stream opens no file of this machine.
_LOCAL_PROTOCOLS, _REMOTE_PROTOCOLS = "file", "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtmp,crypto,data"
log = logging.getLogger(__name__)


class StdinReader:
    """A file object for PyAV that reads standard input, and stops waiting for it once it is closed."""

    _POLL = 0.2  # s

    def __init__(self, file: Any = None) -> None:
        self._file = io.FileIO((file or sys.stdin).fileno(), "rb", closefd=False)
        self._closed = threading.Event()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._closed.is_set():
            if sys.platform == "win32" or select.select([self._file], [], [], self._POLL)[0]:
                return self._file.read(size) or b""
        return b""

    def close(self) -> None:
        """End a read that waits, soon."""
        self._closed.set()


class AvReader(VideoSource):
    """A file, standard input or the address of a stream.

    Raises:
        VideoError: it cannot be opened, or has no picture.
    """

    def __init__(self, origin: Path | str | StdinReader, *, name: str, stem: str, rate: Fraction | None = None) -> None:
        import av

        av.logging.set_level(None)  # FFmpeg writes lines of its own to stderr; what went wrong is said in ours
        self._av, self._name, self._origin = av, name, origin
        self.damaged = 0  # packets that could not be decoded
        is_remote = isinstance(origin, str)
        options = {"max_pixels": str(MAX_PIXELS)}
        if not isinstance(origin, StdinReader):
            options["protocol_whitelist"] = _REMOTE_PROTOCOLS if is_remote else _LOCAL_PROTOCOLS
        if is_remote and urlsplit(origin).scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"  # udp loses packets without a word
        try:
            self._container = av.open(
                str(origin) if isinstance(origin, Path) else origin,
                "r",
                options=options,
                timeout=_TIMEOUTS if is_remote else None,
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{name}: cannot be opened as a video ({reason(error)}){self._hint()}") from None
        try:
            self._begin(stem, rate)
        except VideoError:
            self._container.close()
            raise

    def _begin(self, stem: str, rate: Fraction | None) -> None:
        """Decode the first frame: only it tells how the video is turned."""
        videos = [v for v in self._container.streams.video if not v.disposition & v.disposition.attached_pic]
        if not videos:
            raise VideoError(f"{self._name}: it has no video, only {self._kinds()}")
        self._stream = videos[0]
        if self._stream.codec_context is None:
            raise VideoError(f"{self._name}: its codec is not one that FFmpeg knows: convert or repair it")
        check_size(self._name, self._stream.height or 1, self._stream.width or 1)
        self._stream.thread_type = "AUTO"
        start = self._container.start_time
        self._start = start / self._av.time_base if start is not None else None
        self._decoded = self._decode()
        try:
            self._first = next(self._decoded, None)
        except self._av.error.FFmpegError as error:
            raise VideoError(f"{self._name}: cannot be read ({reason(error)}){self._hint()}") from None
        if self._first is None:
            raise VideoError(f"{self._name}: not one picture of it can be decoded: it is cut off or damaged")
        self._turn = round(self._first.rotation / 90) * 90 % 360
        height, width = self._first.height, self._first.width
        check_size(self._name, height, width)
        self._coded = height, width
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        aspect = aspect if Fraction(1, 20) < aspect < 20 else Fraction(1)
        is_sideways = self._turn in (90, 270)
        own = plausible_rate(self._stream.average_rate) or plausible_rate(self._stream.guessed_rate)
        is_endless = isinstance(self._origin, str) and not self._container.duration
        self.info = VideoInfo(
            name=self._name,
            stem=stem,
            height=width if is_sideways else height,
            width=height if is_sideways else width,
            rate=rate or own or DEFAULT_RATE,
            length=self._stream.frames or self._estimated_length(own),
            is_live=is_endless,
            pixel_aspect=1 / aspect if is_sideways else aspect,
            file=self._origin if isinstance(self._origin, Path) else None,
        )

    def frames(self) -> Iterator[Frame]:
        """See VideoSource."""
        clock, number, seconds = Clock(self.info.rate), 0, 0.0
        decoded = self._first
        start = self._start if self._start is not None and not self.info.is_live else decoded.time
        try:
            while decoded is not None:
                claimed = None if decoded.time is None or start is None else decoded.time - start
                seconds = clock.seconds(claimed)
                yield Frame(number, seconds, self._upright(decoded))
                number += 1
                decoded = next(self._decoded, None)
        except self._av.error.FFmpegError as error:
            raise VideoError(f"{self._name}: cannot be read on after frame {number} ({reason(error)})") from None
        if self.damaged:
            log.warning("%s: %d damaged pieces of it could not be decoded and were left out", self._name, self.damaged)
        expected = self._expected_seconds()
        end = seconds + float(1 / self.info.rate)
        if expected is not None and expected - end > max(_SHORT, _SHORT_SHARE * expected):
            raise VideoError(
                f"{self._name}: ends after frame {number}, at {end:.1f} s of the {expected:.1f} s that it says it has: "
                "it is cut off or damaged"
            )

    def close(self) -> None:
        """See VideoSource."""
        self._container.close()

    def stop_waiting(self) -> None:
        """See VideoSource."""
        if isinstance(self._origin, StdinReader):
            self._origin.close()

    def _decode(self) -> Iterator[Any]:
        """Frames as PyAV has them; what is damaged is left out and counted."""
        for packet in self._container.demux(self._stream):
            yield from self._decoded_packet(packet)

    def _decoded_packet(self, packet: Any) -> list[Any]:
        try:
            return packet.decode()
        except (self._av.error.InvalidDataError, self._av.error.ArgumentError):
            self.damaged += 1
            return []

    def _upright(self, decoded: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a frame, of the first one's size."""
        height, width = self._coded
        image = decoded.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR", threads=1)
        return cv2.rotate(image, _TURNS[self._turn]) if self._turn else image

    def _expected_seconds(self) -> float | None:
        """The length that the header gives; of what has several streams, the video's own alone."""
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        if tag := _DURATION.fullmatch(self._stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = map(float, tag.groups())
            return 3600 * hours + 60 * minutes + seconds
        if len(self._container.streams) == 1 and self._container.duration:
            return self._container.duration / self._av.time_base
        return None

    def _estimated_length(self, rate: Fraction | None) -> int | None:
        duration = self._container.duration
        return round(duration / self._av.time_base * rate) if duration and rate else None

    def _kinds(self) -> str:
        return ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"

    def _hint(self) -> str:
        if isinstance(self._origin, StdinReader):
            return ": an MP4 in a pipe must have its index first (faststart), or give the file"
        return ""


def reason(error: BaseException) -> str:
    """What FFmpeg says, without the address, which may hold a password."""
    return getattr(error, "strerror", None) or str(error)
