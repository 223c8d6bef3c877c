"""Video reader and writer on OpenCV, the fallback without PyAV: constant frame rate, no sound."""

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.video.types import DEFAULT_RATE, Clock, Frame, VideoError, VideoInfo, VideoSource, check_size, plausible_rate


def has_pyav() -> bool:
    """Return True if PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class OpenCvReader(VideoSource):
    """Reader of a video file.

    Raises:
        VideoError: the file cannot be opened, or no frame can be decoded.
    """

    def __init__(self, path: Path, rate: Fraction | None) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(str(path))
        width, height = (int(self._capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            if not self._capture.isOpened():
                raise VideoError(f"{path}: cannot be opened as a video")
            check_size(str(path), height, width)
            has_image, self._first = self._capture.read()
            if not has_image:
                raise VideoError(f"{path}: no frame can be decoded: the file is truncated or damaged")
        except VideoError:
            self._capture.release()
            raise
        height, width = self._first.shape[:2]
        file_rate = plausible_rate(self._capture.get(cv2.CAP_PROP_FPS))
        length = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.info = VideoInfo(
            str(path), path.stem, height, width, rate or file_rate or DEFAULT_RATE, length if length > 0 else None
        )

    def frames(self) -> Iterator[Frame]:
        """See VideoSource."""
        clock, bgr, number = Clock(self.info.rate), self._first, 0
        while bgr is not None:
            yield Frame(number, clock.seconds(None), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            number += 1
            bgr = self._capture.read()[1]

    def close(self) -> None:
        """See VideoSource."""
        self._capture.release()


class OpenCvWriter:
    """Writer of an MP4 with MPEG-4 part 2 ("mp4v") at a constant rate; timestamps are ignored.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.path = path
        self.summary = f"mp4v by OpenCV at a constant {float(info.rate):g} frames a second, without sound"
        size = info.width, info.height
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(info.rate), size)
        if not self._writer.isOpened():
            raise UserError(f"{path}: OpenCV cannot write this file: check that the folder is writable")

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Append one (H, W, 3) uint8 RGB frame."""
        del seconds
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Complete the file."""
        self._writer.release()
