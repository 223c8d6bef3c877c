"""Video reader on PyAV (FFmpeg) for files, pipes and streams."""

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

from utils.errors import requires_package
from utils.text import counted
from utils.video.types import (
    DEFAULT_RATE,
    MAX_PIXELS,
    Clock,
    Frame,
    VideoError,
    VideoInfo,
    VideoSource,
    check_size,
    plausible_rate,
)

_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_TIMEOUTS = (10.0, 10.0)  # s to open a stream, and to receive its next packet
_DURATION = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)")  # tag of a stream in Matroska files
_MAX_MISSING = 1.0  # s that a file may be shorter than its header claims
_MAX_MISSING_FRACTION = 0.05  # of the claimed length, likewise
# Security: a playlist in a local file must not open URLs, and a stream must not open local files.
_LOCAL_PROTOCOLS, _REMOTE_PROTOCOLS = "file", "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtmp,crypto,data"
log = logging.getLogger(__name__)


class StdinReader:
    """File object over standard input for PyAV; `close` unblocks a pending read."""

    _POLL = 0.2  # s

    def __init__(self, file: Any = None) -> None:
        self._file = io.FileIO((file or sys.stdin).fileno(), "rb", closefd=False)
        self._closed = threading.Event()

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; b"" at the end."""
        while not self._closed.is_set():
            if sys.platform == "win32" or select.select([self._file], [], [], self._POLL)[0]:
                return self._file.read(size) or b""
        return b""

    def close(self) -> None:
        """End a blocked read within 0.2 s."""
        self._closed.set()


class AvReader(VideoSource):
    """Reader of a file, standard input or the URL of a stream.

    Raises:
        MissingPackageError: PyAV is not installed.
        VideoError: the video cannot be opened, or no frame can be decoded.
    """

    def __init__(self, origin: Path | str | StdinReader, *, name: str, stem: str, rate: Fraction | None = None) -> None:
        with requires_package("av", "reading video with PyAV"):
            import av

        av.logging.set_level(None)  # FFmpeg would write to stderr; errors are in our messages
        self._av, self._name, self._origin = av, name, origin
        self.damaged = 0  # packets that could not be decoded
        is_remote = isinstance(origin, str)
        options = {"max_pixels": str(MAX_PIXELS)}
        if not isinstance(origin, StdinReader):
            options["protocol_whitelist"] = _REMOTE_PROTOCOLS if is_remote else _LOCAL_PROTOCOLS
        if is_remote and urlsplit(origin).scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"  # UDP loses packets silently
        try:
            self._container = av.open(
                str(origin) if isinstance(origin, Path) else origin,
                "r",
                options=options,
                timeout=_TIMEOUTS if is_remote else None,
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{name}: cannot be opened as a video ({ffmpeg_reason(error)}){self._hint()}") from None
        try:
            self._begin(stem, rate)
        except VideoError:
            self._container.close()
            raise

    def _begin(self, stem: str, rate: Fraction | None) -> None:
        """Decode the first frame, which holds the rotation of the video."""
        videos = [v for v in self._container.streams.video if not v.disposition & v.disposition.attached_pic]
        if not videos:
            raise VideoError(f"{self._name}: contains no video, only {self._kinds()}")
        self._stream = videos[0]
        if self._stream.codec_context is None:
            raise VideoError(f"{self._name}: its codec is unknown to FFmpeg: convert or repair the file")
        check_size(self._name, self._stream.height or 1, self._stream.width or 1)
        self._stream.thread_type = "AUTO"
        start = self._container.start_time
        self._start = start / self._av.time_base if start is not None else None
        self._decoded = self._decode()
        try:
            self._first = next(self._decoded, None)
        except self._av.error.FFmpegError as error:
            raise VideoError(f"{self._name}: cannot be read ({ffmpeg_reason(error)}){self._hint()}") from None
        if self._first is None:
            raise VideoError(f"{self._name}: no frame can be decoded: the file is truncated or damaged")
        self._rotation = round(self._first.rotation / 90) * 90 % 360
        height, width = self._first.height, self._first.width
        check_size(self._name, height, width)
        self._coded = height, width
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        aspect = aspect if Fraction(1, 20) < aspect < 20 else Fraction(1)
        is_sideways = self._rotation in (90, 270)
        stream_rate = plausible_rate(self._stream.average_rate) or plausible_rate(self._stream.guessed_rate)
        is_endless = isinstance(self._origin, str) and not self._container.duration
        self.info = VideoInfo(
            name=self._name,
            stem=stem,
            height=width if is_sideways else height,
            width=height if is_sideways else width,
            rate=rate or stream_rate or DEFAULT_RATE,
            length=self._stream.frames or self._estimated_length(stream_rate),
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
            raise VideoError(f"{self._name}: reading failed after frame {number} ({ffmpeg_reason(error)})") from None
        if self.damaged:
            log.warning("%s: %s could not be decoded", self._name, counted(self.damaged, "damaged packet"))
        expected = self._expected_seconds()
        end = seconds + float(1 / self.info.rate)
        if expected is not None and expected - end > max(_MAX_MISSING, _MAX_MISSING_FRACTION * expected):
            raise VideoError(
                f"{self._name}: ends after frame {number}, at {end:.1f} s of the {expected:.1f} s in its header: "
                "the file is truncated or damaged"
            )

    def close(self) -> None:
        """See VideoSource."""
        self._container.close()

    def stop_waiting(self) -> None:
        """See VideoSource."""
        if isinstance(self._origin, StdinReader):
            self._origin.close()

    def _decode(self) -> Iterator[Any]:
        """Decode PyAV frames; damaged packets are skipped and counted."""
        for packet in self._container.demux(self._stream):
            yield from self._decoded_packet(packet)

    def _decoded_packet(self, packet: Any) -> list[Any]:
        try:
            return packet.decode()
        except (self._av.error.InvalidDataError, self._av.error.ArgumentError):
            self.damaged += 1
            return []

    def _upright(self, decoded: Any) -> np.ndarray:
        """Convert a frame to (H, W, 3) uint8 RGB, upright, at the size of the first frame."""
        height, width = self._coded
        image = decoded.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR", threads=1)
        return cv2.rotate(image, _ROTATIONS[self._rotation]) if self._rotation else image

    def _expected_seconds(self) -> float | None:
        """Return the length of the video stream according to the header, if given."""
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
            return ": an MP4 in a pipe needs its index first (faststart); or give the file name"
        return ""


def ffmpeg_reason(error: BaseException) -> str:
    """Return FFmpeg's error message without the URL, which may contain a password."""
    return getattr(error, "strerror", None) or str(error)
