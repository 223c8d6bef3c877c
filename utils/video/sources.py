"""Video sources of --input: a file, a camera, a stream, a folder of frames, or standard input."""

import glob
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from utils.errors import DataError, UserError
from utils.images.image_files import is_image_name, list_images, read_image
from utils.text import did_you_mean_file, printable
from utils.video.av_reader import AvReader, StdinReader
from utils.video.opencv_video import OpenCvReader, has_pyav
from utils.video.types import DEFAULT_RATE, Clock, Frame, VideoError, VideoInfo, VideoSource, check_size, plausible_rate

STDIN = "-"
_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "rtp")
_MAX_LISTED = 5  # unreadable frames in a message
_MAX_PAUSE = 30.0  # s between attempts to reconnect
log = logging.getLogger(__name__)


def open_video(location: str, *, fps: float | None = None, reconnect: int = 5) -> VideoSource:
    """Open a video. An existing file or folder takes precedence over every other interpretation.

    Args:
        location: a file; a folder or glob pattern of frames, in natural order; the index of a camera; the URL of a
            stream; or STDIN.
        fps: frames per second, overriding the rate of the video.
        reconnect: maximum number of consecutive attempts to reconnect to a stream.

    Raises:
        UserError: nothing is found, or PyAV is needed and missing.
        VideoError: the video cannot be opened.
    """
    rate = Fraction(fps).limit_denominator(1001) if fps else None
    path = Path(location)
    if path.is_dir():
        return _frames_of_folder(path, location, rate)
    if path.exists():
        return _open_file(path, rate)
    if location == STDIN:
        _require_av("standard input")
        return AvReader(StdinReader(), name="standard input", stem="stdin", rate=rate)
    if location.isdecimal() and len(location) < 4:
        return Camera(int(location), rate)
    if urlsplit(location).scheme in _SCHEMES:
        _require_av(redact_credentials(location))
        return Stream(location, rate, reconnect)
    if glob.has_magic(location):
        matches = [Path(match) for match in glob.glob(location, recursive=True)]
        images = [p for p in matches if is_image_name(p) and p.is_file()]
        if images:
            folder = Path(location).parent.name
            return ImageFrames(images, "frames" if glob.has_magic(folder) else folder or "frames", rate)
        raise UserError(f"--input {location}: {'no frames (images)' if matches else 'no file'} matches this pattern")
    raise UserError(f"--input {location}: no such file or folder{did_you_mean_file(path)}")


def redact_credentials(url: str) -> str:
    """Remove user, password and query, which may contain keys, from a URL, for printing."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{host}{parts.path}")


def natural_order(path: Path) -> tuple[list[list[tuple[int, int | str]]], str]:
    """Return a sort key that orders frame_2 before frame_10, folder by folder."""
    names = (*path.parent.parts, path.stem)
    parts = [[(0, int(p)) if p.isdecimal() else (1, p) for p in re.split(r"(\d+)", name)] for name in names]
    return parts, path.name


class ImageFrames(VideoSource):
    """Image files as the frames of a video of the size of the first one.

    Raises:
        DataError: the first image cannot be read.
    """

    def __init__(self, paths: Sequence[Path], stem: str, rate: Fraction | None) -> None:
        self._paths = sorted(paths, key=natural_order)
        height, width = read_image(self._paths[0]).shape[:2]
        check_size(str(self._paths[0]), height, width)
        folder = str(self._paths[0].parent)
        self.info = VideoInfo(folder, stem, height, width, rate or DEFAULT_RATE, length=len(self._paths))

    def frames(self) -> Iterator[Frame]:
        """See VideoSource. Unreadable frames are skipped, and reported at the end."""
        height, width = self.info.height, self.info.width
        unreadable, num_resized = [], 0
        for index, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except DataError as error:
                unreadable.append(str(error))
                continue
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                num_resized += 1
                if num_resized == 1:
                    log.warning("%s: frames of other sizes are resized to %d x %d px", path, width, height)
            yield Frame(index - len(unreadable), float(index / self.info.rate), image)
        if unreadable:
            listed = "; ".join(unreadable[:_MAX_LISTED])
            raise VideoError(f"{len(unreadable)} of {len(self._paths)} frames could not be read: {listed}")

    def close(self) -> None:
        """See VideoSource."""


class Camera(VideoSource):
    """A local camera, by index.

    Raises:
        VideoError: the camera does not exist, or is in use.
    """

    def __init__(self, number: int, rate: Fraction | None, open_capture: Callable = cv2.VideoCapture) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        name = f"camera {number}"
        self._capture = open_capture(number)
        image = self._capture.read()[1] if self._capture.isOpened() else None
        if image is None:
            self._capture.release()
            raise VideoError(
                f"{name}: returns no picture: check that it is plugged in and not in use; cameras count from 0"
            )
        height, width = image.shape[:2]
        own_rate = plausible_rate(self._capture.get(cv2.CAP_PROP_FPS))
        self.info = VideoInfo(name, f"camera_{number}", height, width, rate or own_rate or DEFAULT_RATE, is_live=True)

    def frames(self) -> Iterator[Frame]:
        """See VideoSource. Timestamps are times of arrival."""
        clock, started, number = Clock(self.info.rate), time.monotonic(), 0
        while True:
            has_image, bgr = self._capture.read()
            if not has_image:
                raise VideoError(f"{self.info.name}: returned no picture after frame {number}: check its connection")
            seconds = clock.seconds(time.monotonic() - started)
            yield Frame(number, seconds, _resized(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), self.info))
            number += 1

    def close(self) -> None:
        """See VideoSource."""
        self._capture.release()


class Stream(VideoSource):
    """A stream by its URL. A lost connection is reopened, with growing pauses.

    A recorded stream continues where it stopped; a live stream has a gap in its timestamps.

    Args:
        reconnect: maximum number of consecutive attempts to reconnect.
        first_wait: s before the first attempt; the pause doubles with each further one, up to 30 s.
    """

    def __init__(self, url: str, rate: Fraction | None, reconnect: int, *, first_wait: float = 1.0) -> None:
        self._url, self._rate = url, rate
        self._name = redact_credentials(url)
        self._reconnect, self._first_wait = reconnect, first_wait
        self._stopped = threading.Event()
        self._reader = self._open()
        self.info = self._reader.info

    def frames(self) -> Iterator[Frame]:
        """See VideoSource."""
        clock, started, number = Clock(self.info.rate), time.monotonic(), 0
        failures, last, offset = 0, -1.0, 0.0
        while True:
            problem = "the stream ended"
            try:
                for frame in self._reader.frames():
                    seconds = frame.seconds + offset
                    if seconds <= last:
                        continue  # of a recorded stream, read before the connection was lost
                    failures, last = 0, clock.seconds(seconds)
                    yield Frame(number, last, _resized(frame.image, self.info))
                    number += 1
                if not self.info.is_live:
                    return
            except VideoError as error:
                problem = str(error).removeprefix(f"{self._name}: ")
            failures = self._reconnect_stream(failures, number, problem)
            if self._stopped.is_set():
                return
            if self.info.is_live:
                offset = max(time.monotonic() - started, last + float(1 / self.info.rate))

    def close(self) -> None:
        """See VideoSource."""
        self._reader.close()

    def stop_waiting(self) -> None:
        """See VideoSource. Stops reconnecting."""
        self._stopped.set()

    def _open(self) -> AvReader:
        return AvReader(self._url, name=self._name, stem="stream", rate=self._rate)

    def _reconnect_stream(self, failures: int, number: int, problem: str) -> int:
        """Reopen the stream; return the number of consecutive failures so far. Returns at once after stop_waiting."""
        self._reader.close()
        if self._stopped.is_set():
            return failures
        while failures < self._reconnect:
            pause = min(_MAX_PAUSE, self._first_wait * 2**failures)
            failures += 1
            log.warning(
                "%s: connection lost after frame %d (%s); attempt %d of %d in %g s",
                self._name, number, problem, failures, self._reconnect, pause,
            )  # fmt: skip
            if self._stopped.wait(pause):
                return failures
            try:
                self._reader = self._open()
            except VideoError as error:
                problem = str(error).removeprefix(f"{self._name}: ")
            else:
                return failures
        raise VideoError(
            f"{self._name}: connection lost after frame {number} ({problem}); "
            f"{self._reconnect} attempts to reconnect failed"
        )


def _open_file(path: Path, rate: Fraction | None) -> VideoSource:
    if is_image_name(path):
        raise UserError(f"--input {path}: is an image: use inference.py, or give a folder of frames")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    if has_pyav():
        return AvReader(path, name=str(path), stem=path.stem, rate=rate)
    return OpenCvReader(path, rate)


def _frames_of_folder(path: Path, location: str, rate: Fraction | None) -> VideoSource:
    images = list_images(path)
    if not images:
        raise UserError(f"--input {location}: no frames (images) in this folder; give a video by its file name")
    return ImageFrames(images, path.resolve().name or "frames", rate)


def _resized(image: np.ndarray, info: VideoInfo) -> np.ndarray:
    """Resize to the size of the video; cameras and streams may change size when reopened."""
    size = info.width, info.height
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _require_av(name: str) -> None:
    if not has_pyav():
        raise UserError(f"{name} needs PyAV: pip install av")
