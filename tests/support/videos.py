"""Videos that the tests make."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS = 60_000  # of a second


def pictures(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames whose number can be read, see `number_of`, after a codec too: each half is a digit of 16 gray levels."""
    made = []
    for i in range(count):
        picture = np.empty((height, width, 3), np.uint8)
        picture[:, : width // 2], picture[:, width // 2 :] = 8 + 16 * (i // 16 % 16), 8 + 16 * (i % 16)
        made.append(picture)
    return made


def number_of(picture: np.ndarray) -> int:
    """The number of one of `pictures`."""
    width = picture.shape[1]
    high, low = picture[:, : width // 4].mean(), picture[:, -max(1, width // 4) :].mean()
    return int(high // 16) * 16 + int(low // 16)


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: int | Fraction = 24,
    times: Iterable[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int = 0,
    sound: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of (H, W, 3) uint8 RGB frames; `times` in s; `sound` is the codec of a tone as long as the video."""
    height, width = frames[0].shape[:2]
    times = list(times) if times is not None else [float(i / Fraction(rate)) for i in range(len(frames))]
    extra = {"preset": "ultrafast", "crf": "10"} if codec == "libx264" else {"b": "4000000"}
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=extra)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = Fraction(1, TICKS)
        if rotation:
            stream.set_display_rotation(rotation)
        tone = None
        if sound is not None:
            tone = container.add_stream(sound, rate=48_000, layout="mono")
        for picture, seconds in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _add_tone(container, tone, times[-1])
    return path


def read_back(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Frames as (H, W, 3) uint8 RGB, not turned, and their moments in s."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in decoded], [frame.time for frame in decoded]


def is_faststart(path: Path) -> bool:
    """Return True if the index of an MP4 comes before its pictures."""
    data = path.read_bytes()
    return 0 < data.find(b"moov") < data.find(b"mdat")


def _add_tone(container: Any, stream: Any, seconds: float) -> None:
    size = stream.codec_context.frame_size or 1024
    for start in range(0, int(seconds * 48_000), size):
        wave = (np.sin(np.arange(start, start + size) * 2 * np.pi * 440 / 48_000) * 0.3).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = start, 48_000, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
