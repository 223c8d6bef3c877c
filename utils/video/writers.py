"""Videos to watch: H.264 in an MP4 that every browser plays, or mp4v; with the moments and the sound of the source."""

import contextlib
import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from utils.errors import UserError
from utils.video.av_reader import reason
from utils.video.opencv_video import OpenCvWriter, has_pyav
from utils.video.types import VideoInfo

H264, MP4V = CODECS = ("h264", "mp4v")
_WORDS = {H264: "H.264", MP4V: "mp4v"}
_ENCODERS = {H264: "libx264", MP4V: "mpeg4"}
_TIME_BASES = {H264: Fraction(1, 90_000), MP4V: Fraction(1, 60_000)}  # s; MPEG-4 part 2 counts to 65,535
# Between x264's presets ultrafast and veryfast: two thirds of the latter's time, twice its bytes, 2 dB more.
_X264 = {
    "preset": "ultrafast",
    "crf": "25",
    "x264-params": "cabac=1:8x8dct=1:analyse=i4x4,i8x8:deblock=0,0:bframes=2:b-adapt=0",
}
_MPEG4_BITS = 0.2  # a pixel, near the quality of the above
_FINISHED = {"movflags": "+faststart", "movie_timescale": "90000"}  # ms would move what starts late
_SOUNDS = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # what players take in an MP4
_BT601, _BT709, _LIMITED = 6, 1, 1  # ITU-T H.273, tables 2 to 4
log = logging.getLogger(__name__)


class VideoWriter(Protocol):
    """Takes pictures and makes a file of them."""

    path: Path
    summary: str  # on its form

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Append one (H, W, 3) uint8 RGB picture of the video's size."""

    def close(self) -> None:
        """Make the file whole."""


def open_writer(path: str | Path, info: VideoInfo, *, codec: str | None = None, sound: bool = True) -> VideoWriter:
    """A writer for pictures of the size of a video's frames.

    Args:
        codec: one of CODECS; without it h264, or mp4v where PyAV is missing.
        sound: keep that of `facts.file`.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path)
    if has_pyav():
        return AvWriter(path, info, codec or H264, sound=info.file if sound else None)
    if codec == H264:
        raise UserError(f"--codec {H264} needs PyAV: pip install av, or drop --codec")
    return OpenCvWriter(path, info)


class AvWriter:
    """An MP4 that can be played at any moment of its making, however that ends.

    While it grows it is a fragmented MP4; `close` puts its index first, so that it starts to play while it is loaded,
    and the sound beside it.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, info: VideoInfo, codec: str, *, sound: Path | None = None) -> None:
        import av
        import av.container.core

        av.logging.set_level(None)
        self._av, self.path = av, path
        self._time_base, self._last = _TIME_BASES[codec], -1
        self._even = info.height + info.height % 2, info.width + info.width % 2
        height, width = self._even
        self.summary = f"{_WORDS[codec]} in an MP4"
        if self._even != (info.height, info.width):
            self.summary += f", padded to {width} x {height} px (the codec takes even sizes only)"
        self._sound, words = self._check_sound(sound)
        self.summary += words
        options = dict(_X264)
        if codec == MP4V:
            options = {"b": str(max(100_000, int(height * width * info.rate * _MPEG4_BITS)))}
        with self._told():
            self._container = av.open(
                str(path), "w", format="mp4", options={"movflags": "+hybrid_fragmented+delay_moov"}
            )
            self._container.flags |= av.container.core.Flags.flush_packets.value
            self._stream = self._container.add_stream(_ENCODERS[codec], rate=info.rate, options=options)
            context = self._stream.codec_context
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base, context.sample_aspect_ratio = self._time_base, info.pixel_aspect
            context.gop_size = max(1, round(2 * info.rate))  # a fragment, which a crash may cost, is 2 s
            context.colorspace, context.color_range = _BT601, _LIMITED  # as OpenCV converts
            context.color_primaries = context.color_trc = _BT709  # sRGB's
            self._container.start_encoding()  # makes the file

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """See VideoWriter.

        Raises:
            UserError: the disk does not take it.
        """
        bottom, right = self._even[0] - picture.shape[0], self._even[1] - picture.shape[1]
        if bottom or right:
            picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        frame = self._av.VideoFrame.from_ndarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        self._last = max(self._last + 1, round(seconds / self._time_base))
        frame.pts, frame.time_base = self._last, self._time_base
        with self._told():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """See VideoWriter; a video that could not be written to its end stays as it is.

        Raises:
            UserError: the disk does not take the rest.
        """
        try:
            with self._told():
                self._container.mux(self._stream.encode(None))
        finally:
            with self._told():
                self._container.close()
        if self._last >= 0:
            with self._told():
                self._finish()

    def _finish(self) -> None:
        """The same video with its index first, and with the sound."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with contextlib.ExitStack() as files:
                video = files.enter_context(self._av.open(str(self.path)))
                made = files.enter_context(self._av.open(str(temporary), "w", format="mp4", options=_FINISHED))
                inputs, until = [_Copied(video, video.streams.video[0])], self._last * self._time_base + 1
                if self._sound is not None:
                    sound = files.enter_context(self._av.open(str(self._sound), metadata_errors="replace"))
                    start = Fraction(sound.start_time or 0, self._av.time_base)
                    inputs.append(_Copied(sound, sound.streams.audio[0], start))
                copies = [made.add_stream_from_template(each.stream) for each in inputs]
                for place, packet in _by_time([each.packets(until) for each in inputs]):
                    packet.stream = copies[place]
                    made.mux_one(packet)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_sound(self, file: Path | None) -> tuple[Path | None, str]:
        """The file if it has sound that can be copied, and words on it."""
        if file is None:
            return None, ""
        try:
            with self._av.open(str(file), metadata_errors="replace") as container:
                streams = container.streams.audio
                context = streams[0].codec_context if streams else None  # None for a codec that is not known
                name = context.codec.canonical_name if context else None
        except self._av.error.FFmpegError as error:
            return None, f", without the sound, which cannot be read ({reason(error)})"
        if name is None or name in _SOUNDS:
            return (None, "") if name is None else (file, f", with the sound ({name})")
        return None, f", without the sound ({name} does not fit into an MP4)"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            raise UserError(
                f"{self.path}: cannot be written ({reason(error)}); what was written before is kept"
            ) from None


class _Copied(NamedTuple):
    """A stream to copy; `start`, in s, becomes 0."""

    container: Any
    stream: Any
    start: Fraction = Fraction(0)

    def packets(self, until: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Moment in s and packet, up to a moment; damage ends them."""
        import av

        shift = round(self.start / self.stream.time_base)
        with contextlib.suppress(av.error.FFmpegError):
            for packet in self.container.demux(self.stream):
                if packet.dts is None:
                    continue
                packet.dts -= shift
                packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                moment = packet.dts * self.stream.time_base
                if moment > until:
                    return
                yield moment, packet


def _by_time(sources: list[Iterator[tuple[Fraction, Any]]]) -> Iterator[tuple[int, Any]]:
    """Number of the source and packet, of all sources in the order of time, as players read them."""
    waiting = {place: entry for place, source in enumerate(sources) if (entry := next(source, None)) is not None}
    while waiting:
        place = min(waiting, key=lambda p: waiting[p][0])
        yield place, waiting.pop(place)[1]
        if (entry := next(sources[place], None)) is not None:
            waiting[place] = entry
