"""What --input means for a video: a file, a camera, a stream, a folder of frames, or standard input."""

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
_MOST_LISTED = 5  # unreadable frames that a message names
_LONGEST_WAIT = 30.0  # s before another attempt to connect
log = logging.getLogger(__name__)


def open_video(wish: str, *, fps: float | None = None, reconnect: int = 5) -> VideoSource:
    """A video to read; what exists under the very name wins over every other meaning.

    Args:
        wish: a file; a folder or glob pattern of frames, in natural order; the number of a camera; the address of a
            stream; or STDIN.
        fps: frames a second, instead of what the video says.
        reconnect: times that a stream is opened again in a row.

    Raises:
        UserError: there is none.
        VideoError: it cannot be opened.
    """
    rate = Fraction(fps).limit_denominator(1001) if fps else None
    path = Path(wish)
    if path.is_dir():
        return _frames_of_folder(path, wish, rate)
    if path.exists():
        return _open_file(path, rate)
    if wish == STDIN:
        _require_av("standard input")
        return AvReader(StdinReader(), name="standard input", stem="stdin", rate=rate)
    if wish.isdecimal() and len(wish) < 4:
        return Camera(int(wish), rate)
    if urlsplit(wish).scheme in _SCHEMES:
        _require_av(redact_credentials(wish))
        return Stream(wish, rate, reconnect)
    if glob.has_magic(wish):
        found = [Path(match) for match in glob.glob(wish, recursive=True)]
        images = [p for p in found if is_image_name(p) and p.is_file()]
        if images:
            folder = Path(wish).parent.name
            return ImageFrames(images, "frames" if glob.has_magic(folder) else folder or "frames", rate)
        raise UserError(f"--input {wish}: {'no frames (images)' if found else 'no file'} under this pattern")
    raise UserError(f"--input {wish}: no such file or folder{did_you_mean_file(path)}")


def redact_credentials(address: str) -> str:
    """An address to print: user and password, and what a query may hold of keys, are left out."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{host}{parts.path}")


def natural_order(path: Path) -> tuple[list[list[tuple[int, int | str]]], str]:
    """Sorts frame_2 before frame_10, folder by folder."""
    names = (*path.parent.parts, path.stem)
    words = [[(0, int(w)) if w.isdecimal() else (1, w) for w in re.split(r"(\d+)", name)] for name in names]
    return words, path.name


class ImageFrames(VideoSource):
    """Image files as the frames of a video; the first one's size is the video's.

    Raises:
        DataError: not even the first can be read.
    """

    def __init__(self, paths: Sequence[Path], stem: str, rate: Fraction | None) -> None:
        self._paths = sorted(paths, key=natural_order)
        height, width = read_image(self._paths[0]).shape[:2]
        check_size(str(self._paths[0]), height, width)
        folder = str(self._paths[0].parent)
        self.info = VideoInfo(folder, stem, height, width, rate or DEFAULT_RATE, length=len(self._paths))

    def frames(self) -> Iterator[Frame]:
        """See VideoSource; a frame that cannot be read is left out, and told at the end."""
        height, width = self.info.height, self.info.width
        unreadable, others = [], 0
        for place, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except DataError as error:
                unreadable.append(str(error))
                continue
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                others += 1
                if others == 1:
                    log.warning("%s: frames of other sizes are resized to %d x %d px", path, width, height)
            yield Frame(place - len(unreadable), float(place / self.info.rate), image)
        if unreadable:
            listed = "; ".join(unreadable[:_MOST_LISTED])
            raise VideoError(f"{len(unreadable)} of {len(self._paths)} frames were left out: {listed}")

    def close(self) -> None:
        """See VideoSource."""


class Camera(VideoSource):
    """A camera of this machine, by its number.

    Raises:
        VideoError: it is not there, or in use.
    """

    def __init__(self, number: int, rate: Fraction | None, open_capture: Callable = cv2.VideoCapture) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        name = f"camera {number}"
        self._capture = open_capture(number)
        image = self._capture.read()[1] if self._capture.isOpened() else None
        if image is None:
            self._capture.release()
            raise VideoError(f"{name}: gives no picture: is it plugged in, and free? Cameras count from 0")
        height, width = image.shape[:2]
        own = plausible_rate(self._capture.get(cv2.CAP_PROP_FPS))
        self.info = VideoInfo(name, f"camera_{number}", height, width, rate or own or DEFAULT_RATE, is_live=True)

    def frames(self) -> Iterator[Frame]:
        """See VideoSource; the moments are when frames came."""
        clock, started, number = Clock(self.info.rate), time.monotonic(), 0
        while True:
            has_image, bgr = self._capture.read()
            if not has_image:
                raise VideoError(f"{self.info.name}: gave no picture after frame {number}: was it unplugged?")
            seconds = clock.seconds(time.monotonic() - started)
            yield Frame(number, seconds, _fitted(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), self.info))
            number += 1

    def close(self) -> None:
        """See VideoSource."""
        self._capture.release()


class Stream(VideoSource):
    """A stream by its address. When it breaks off, it is opened again, with growing pauses.

    What has an end goes on where it was; what is live has a gap of as long as it was away.

    Args:
        reconnect: attempts in a row, before it is given up.
        first_wait: s before the first of them; each further one waits twice as long, up to 30 s.
    """

    def __init__(self, address: str, rate: Fraction | None, reconnect: int, *, first_wait: float = 1.0) -> None:
        self._address, self._rate = address, rate
        self._name = redact_credentials(address)
        self._reconnect, self._first_wait = reconnect, first_wait
        self._unwanted = threading.Event()
        self._reader = self._open()
        self.info = self._reader.info

    def frames(self) -> Iterator[Frame]:
        """See VideoSource."""
        clock, started, number = Clock(self.info.rate), time.monotonic(), 0
        failures, last, offset = 0, -1.0, 0.0
        while True:
            problem = "it ended"
            try:
                for frame in self._reader.frames():
                    seconds = frame.seconds + offset
                    if seconds <= last:
                        continue  # of what has an end, seen before it broke off
                    failures, last = 0, clock.seconds(seconds)
                    yield Frame(number, last, _fitted(frame.image, self.info))
                    number += 1
                if not self.info.is_live:
                    return
            except VideoError as error:
                problem = str(error).removeprefix(f"{self._name}: ")
            failures = self._open_again(failures, number, problem)
            if self._unwanted.is_set():
                return
            if self.info.is_live:
                offset = max(time.monotonic() - started, last + float(1 / self.info.rate))

    def close(self) -> None:
        """See VideoSource."""
        self._reader.close()

    def stop_waiting(self) -> None:
        """See VideoSource; no attempt is made any more."""
        self._unwanted.set()

    def _open(self) -> AvReader:
        return AvReader(self._address, name=self._name, stem="stream", rate=self._rate)

    def _open_again(self, failures: int, number: int, problem: str) -> int:
        """Failures in a row so far; at once if nobody waits any more."""
        self._reader.close()
        if self._unwanted.is_set():
            return failures
        while failures < self._reconnect:
            wait = min(_LONGEST_WAIT, self._first_wait * 2**failures)
            failures += 1
            log.warning(
                "%s: broke off after frame %d (%s); attempt %d of %d in %g s",
                self._name, number, problem, failures, self._reconnect, wait,
            )  # fmt: skip
            if self._unwanted.wait(wait):
                return failures
            try:
                self._reader = self._open()
            except VideoError as error:
                problem = str(error).removeprefix(f"{self._name}: ")
            else:
                return failures
        raise VideoError(
            f"{self._name}: broke off after frame {number} ({problem}); {self._reconnect} attempts to reconnect failed"
        )


def _open_file(path: Path, rate: Fraction | None) -> VideoSource:
    if is_image_name(path):
        raise UserError(f"--input {path}: this is an image: use inference.py, or give the folder of all frames")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    if has_pyav():
        return AvReader(path, name=str(path), stem=path.stem, rate=rate)
    return OpenCvReader(path, rate)


def _frames_of_folder(path: Path, wish: str, rate: Fraction | None) -> VideoSource:
    images = list_images(path)
    if not images:
        raise UserError(f"--input {wish}: no frames (images) in this folder; give one video by its file name")
    return ImageFrames(images, path.resolve().name or "frames", rate)


def _fitted(image: np.ndarray, info: VideoInfo) -> np.ndarray:
    """At the size of the video, which a camera or a stream may leave when it starts anew."""
    size = info.width, info.height
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _require_av(name: str) -> None:
    if not has_pyav():
        raise UserError(f"{name} needs PyAV: pip install av")
