"""Video writers: H.264 in an MP4 that browsers play, or mp4v, with the timestamps and sound of the source."""

import contextlib
import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from utils.errors import UserError, requires_package
from utils.video.av_reader import ffmpeg_reason
from utils.video.opencv_video import OpenCvWriter, has_pyav
from utils.video.types import VideoInfo

H264, MP4V = CODECS = ("h264", "mp4v")
_NAMES = {H264: "H.264", MP4V: "mp4v"}
_ENCODERS = {H264: "libx264", MP4V: "mpeg4"}
_TIME_BASES = {H264: Fraction(1, 90_000), MP4V: Fraction(1, 60_000)}  # s; MPEG-4 part 2 is limited to 1/65,535
# Between x264's presets ultrafast and veryfast: 2/3 of the time of the latter, twice its size, 2 dB better PSNR.
_X264 = {
    "preset": "ultrafast",
    "crf": "25",
    "x264-params": "cabac=1:8x8dct=1:analyse=i4x4,i8x8:deblock=0,0:bframes=2:b-adapt=0",
}
_MPEG4_BITS = 0.2  # per pixel, similar quality
_FINISHED = {"movflags": "+faststart", "movie_timescale": "90000"}  # 1 ms would shift streams that start late
_MP4_AUDIO = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # codecs that players support in MP4
_BT601, _BT709, _LIMITED = 6, 1, 1  # ITU-T H.273, tables 2 to 4
log = logging.getLogger(__name__)


class VideoWriter(Protocol):
    """Writes frames to a video file."""

    path: Path
    summary: str  # format, for messages

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Append one (H, W, 3) uint8 RGB frame of the video's size with its timestamp in s."""

    def close(self) -> None:
        """Complete the file."""


def open_writer(path: str | Path, info: VideoInfo, *, codec: str | None = None, sound: bool = True) -> VideoWriter:
    """Open a writer for frames of the size in `info`.

    Args:
        codec: one of CODECS; default h264, or mp4v without PyAV.
        sound: copy the sound of `info.file`.

    Raises:
        UserError: the file cannot be written, or h264 was requested without PyAV.
    """
    path = Path(path)
    if has_pyav():
        return AvWriter(path, info, codec or H264, sound=info.file if sound else None)
    if codec == H264:
        raise UserError(f"--codec {H264} needs PyAV: pip install av, or drop --codec")
    return OpenCvWriter(path, info)


class AvWriter:
    """MP4 writer on PyAV. The file is playable at any time, even after a crash.

    It is a fragmented MP4 until `close` moves the index to the front (faststart) and adds the sound.

    Raises:
        MissingPackageError: PyAV is not installed.
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, info: VideoInfo, codec: str, *, sound: Path | None = None) -> None:
        with requires_package("av", "writing video with PyAV"):
            import av
            import av.container.core

        av.logging.set_level(None)
        self._av, self.path = av, path
        self._time_base, self._last = _TIME_BASES[codec], -1
        self._even = info.height + info.height % 2, info.width + info.width % 2
        height, width = self._even
        self.summary = f"{_NAMES[codec]} in an MP4"
        if self._even != (info.height, info.width):
            self.summary += f", padded to {width} x {height} px (the codec requires even sizes)"
        self._sound, sound_summary = self._check_sound(sound)
        self.summary += sound_summary
        options = dict(_X264)
        if codec == MP4V:
            options = {"b": str(max(100_000, int(height * width * info.rate * _MPEG4_BITS)))}
        with self._user_errors():
            self._container = av.open(
                str(path), "w", format="mp4", options={"movflags": "+hybrid_fragmented+delay_moov"}
            )
            self._container.flags |= av.container.core.Flags.flush_packets.value
            self._stream = self._container.add_stream(_ENCODERS[codec], rate=info.rate, options=options)
            context = self._stream.codec_context
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base, context.sample_aspect_ratio = self._time_base, info.pixel_aspect
            context.gop_size = max(1, round(2 * info.rate))  # fragments of 2 s, the most that a crash loses
            context.colorspace, context.color_range = _BT601, _LIMITED  # as OpenCV converts RGB
            context.color_primaries = context.color_trc = _BT709  # sRGB's
            self._container.start_encoding()  # creates the file

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """See VideoWriter.

        Raises:
            UserError: writing fails, for example on a full disk.
        """
        bottom, right = self._even[0] - picture.shape[0], self._even[1] - picture.shape[1]
        if bottom or right:
            picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        frame = self._av.VideoFrame.from_ndarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        self._last = max(self._last + 1, round(seconds / self._time_base))
        frame.pts, frame.time_base = self._last, self._time_base
        with self._user_errors():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """See VideoWriter. If writing fails, the fragmented file is kept.

        Raises:
            UserError: writing fails, for example on a full disk.
        """
        try:
            with self._user_errors():
                self._container.mux(self._stream.encode(None))
        finally:
            with self._user_errors():
                self._container.close()
        if self._last >= 0:
            with self._user_errors():
                self._finish()

    def _finish(self) -> None:
        """Rewrite the video with its index first and with the sound."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with contextlib.ExitStack() as files:
                video = files.enter_context(self._av.open(str(self.path)))
                output = files.enter_context(self._av.open(str(temporary), "w", format="mp4", options=_FINISHED))
                inputs, until = [_CopiedStream(video, video.streams.video[0])], self._last * self._time_base + 1
                if self._sound is not None:
                    sound = files.enter_context(self._av.open(str(self._sound), metadata_errors="replace"))
                    start = Fraction(sound.start_time or 0, self._av.time_base)
                    inputs.append(_CopiedStream(sound, sound.streams.audio[0], start))
                copies = [output.add_stream_from_template(source.stream) for source in inputs]
                for index, packet in _by_time([source.packets(until) for source in inputs]):
                    packet.stream = copies[index]
                    output.mux_one(packet)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_sound(self, file: Path | None) -> tuple[Path | None, str]:
        """Return the file if its sound can be copied, and a text for the summary."""
        if file is None:
            return None, ""
        try:
            with self._av.open(str(file), metadata_errors="replace") as container:
                streams = container.streams.audio
                context = streams[0].codec_context if streams else None  # None: unknown codec
                name = context.codec.canonical_name if context else None
        except self._av.error.FFmpegError as error:
            return None, f", without sound, which cannot be read ({ffmpeg_reason(error)})"
        if name is None or name in _MP4_AUDIO:
            return (None, "") if name is None else (file, f", with sound ({name})")
        return None, f", without sound ({name} is not supported in MP4)"

    @contextlib.contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            raise UserError(
                f"{self.path}: cannot be written ({ffmpeg_reason(error)}); the part written before is kept"
            ) from None


class _CopiedStream(NamedTuple):
    """A stream to copy, shifted so that `start`, in s, becomes 0."""

    container: Any
    stream: Any
    start: Fraction = Fraction(0)

    def packets(self, until: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Iterate over timestamps in s and packets, until a time in s or a damaged packet."""
        import av

        shift = round(self.start / self.stream.time_base)
        with contextlib.suppress(av.error.FFmpegError):
            for packet in self.container.demux(self.stream):
                if packet.dts is None:
                    continue
                packet.dts -= shift
                packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                seconds = packet.dts * self.stream.time_base
                if seconds > until:
                    return
                yield seconds, packet


def _by_time(sources: list[Iterator[tuple[Fraction, Any]]]) -> Iterator[tuple[int, Any]]:
    """Interleave packets by time; yield the index of the source and the packet."""
    waiting = {index: entry for index, source in enumerate(sources) if (entry := next(source, None)) is not None}
    while waiting:
        index = min(waiting, key=lambda i: waiting[i][0])
        yield index, waiting.pop(index)[1]
        if (entry := next(sources[index], None)) is not None:
            waiting[index] = entry
