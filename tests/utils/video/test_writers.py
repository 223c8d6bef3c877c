"""Videos that players, and above all browsers, take."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.videos import is_faststart, number_of, pictures, read_back, write_video
from utils.errors import UserError
from utils.video import writers as video_writers
from utils.video.sources import open_video
from utils.video.types import VideoInfo
from utils.video.writers import AvWriter, OpenCvWriter, open_writer


def info(height: int = 64, width: int = 96, rate: Fraction | int = 24, **others: object) -> VideoInfo:
    return VideoInfo("a", "a", height, width, Fraction(rate), **others)


def write(path: Path, frames: list[np.ndarray], about: VideoInfo, times: list[float] | None = None, **wish) -> Path:
    writer = open_writer(path, about, **wish)
    for i, frame in enumerate(frames):
        writer.write(frame, times[i] if times else float(i / about.rate))
    writer.close()
    return path


@pytest.mark.parametrize("codec", ["h264", "mp4v"])
@pytest.mark.parametrize("rate", [24, 25, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
def test_rate_size_and_order(tmp_path: Path, codec: str, rate: Fraction) -> None:
    """Faults of the predecessor: video was always written at 30 fps and never released."""
    path = write(tmp_path / "a.mp4", pictures(50), info(rate=rate), codec=codec)
    frames, times = read_back(path)
    assert [number_of(f) for f in frames] == list(range(50))
    assert frames[0].shape == (64, 96, 3)
    np.testing.assert_allclose(times, [float(i / rate) for i in range(50)], atol=2e-5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(float(rate), rel=1e-4)
        assert stream.codec_context.name == {"h264": "h264", "mp4v": "mpeg4"}[codec]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert container.duration / 1e6 == pytest.approx(50 / rate, abs=0.01)
    assert is_faststart(path)
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 0.5, 0.54, 2.0]
    _, got = read_back(write(tmp_path / "a.mp4", pictures(6), info(), times))
    np.testing.assert_allclose(got, times, atol=1e-4)


def test_moments_that_do_not_grow_are_written_all_the_same(tmp_path: Path) -> None:
    frames, got = read_back(write(tmp_path / "a.mp4", pictures(4), info(), [0, 0, 0, 0]))
    assert len(frames) == 4
    assert got == sorted(got)


@pytest.mark.parametrize(("size", "padded"), [((65, 97), (66, 98)), ((1, 640), (2, 640)), ((1, 1), (2, 2))])
@pytest.mark.parametrize("codec", ["h264", "mp4v"])
def test_odd_sizes_are_padded(tmp_path: Path, size: tuple[int, int], padded: tuple[int, int], codec: str) -> None:
    gray = [np.full((*size, 3), 90, np.uint8)] * 3
    assert f"padded to {padded[1]} x {padded[0]} px" in open_writer(tmp_path / "b.mp4", info(*size)).summary
    frames, _ = read_back(write(tmp_path / "a.mp4", gray, info(*size), codec=codec))
    assert frames[0].shape == (*padded, 3)
    assert np.abs(frames[0].astype(int) - 90).max() < 6


def test_colors_come_back(tmp_path: Path) -> None:
    """The file says by which matrix its colors were made: without it players guess by the size."""
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    picture = np.repeat(np.array(colors, np.uint8)[None], 32, 1).reshape(1, -1, 3).repeat(720, 0)
    (frame, *_), _ = read_back(write(tmp_path / "a.mp4", [picture] * 2, info(720, picture.shape[1])))
    middles = frame[360, 16::32].astype(int)
    assert np.abs(middles - np.array(colors)).max() <= 4


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", pictures(3), info(pixel_aspect=Fraction(4, 3)))
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("sound", ["aac", "libmp3lame"])
def test_sound_is_kept(tmp_path: Path, sound: str) -> None:
    """The copied sound is bit-equal, and ends with the video, which a signal may have stopped early."""
    source = write_video(tmp_path / "s.mkv", pictures(72), sound=sound)
    writer = open_writer(tmp_path / "a.mp4", info(file=source))
    assert "with sound (" in writer.summary
    for i, frame in enumerate(pictures(48)):
        writer.write(frame, i / 24)
    writer.close()

    def packets(path: Path) -> list[tuple[float, bytes]]:
        with av.open(str(path)) as container:
            return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(audio=0) if p.dts is not None]

    kept, whole = packets(tmp_path / "a.mp4"), packets(source)
    assert [data for _, data in kept] == [data for _, data in whole[: len(kept)]]
    np.testing.assert_allclose([t for t, _ in kept], [t for t, _ in whole[: len(kept)]], atol=0.03)
    assert 1.9 < kept[-1][0] < 3.1
    assert len(read_back(tmp_path / "a.mp4")[0]) == 48
    assert is_faststart(tmp_path / "a.mp4")


def test_sound_that_an_mp4_cannot_have_is_left_out_and_told(tmp_path: Path) -> None:
    source = write_video(tmp_path / "s.mkv", pictures(24), sound="pcm_f32le")
    writer = open_writer(tmp_path / "a.mp4", info(file=source))
    assert "without sound (pcm_f32le is not supported in MP4)" in writer.summary
    for i, frame in enumerate(pictures(24)):
        writer.write(frame, i / 24)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


def test_sound_is_left_out_on_request(tmp_path: Path) -> None:
    source = write_video(tmp_path / "s.mkv", pictures(24), sound="aac")
    write(tmp_path / "a.mp4", pictures(3), info(file=source), sound=False)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


def test_a_process_that_is_killed_leaves_a_playable_file(tmp_path: Path) -> None:
    """Fault of the predecessor: the video was never released."""
    pid = os.fork()
    if pid == 0:
        writer = open_writer(tmp_path / "a.mp4", info())
        for i, frame in enumerate(pictures(240)):
            writer.write(frame, i / 24)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    frames, _ = read_back(tmp_path / "a.mp4")
    assert len(frames) > 100
    assert [number_of(f) for f in frames] == list(range(len(frames)))


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    """/dev/full is one that is full from the start; a limit on the size of files is one that becomes so."""
    with pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write(Path("/dev/full"), pictures(60), info())
    rng = np.random.default_rng(0)
    pid = os.fork()
    if pid == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        try:
            write(tmp_path / "a.mp4", [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(600)], info())
        except UserError as error:
            (tmp_path / "words").write_text(str(error))
        os._exit(0)
    os.waitpid(pid, 0)
    words = (tmp_path / "words").read_text()
    assert "a.mp4: cannot be written (File too large); the part written before is kept" in words
    frames = open_video(str(tmp_path / "a.mp4")).frames()
    assert [next(frames).number for _ in range(40)] == list(range(40))
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "words"]


def test_a_disk_that_is_full_at_the_end_costs_only_the_index_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(video_writers.os, "replace", fail)
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written \(No space left on device\)"):
        write(tmp_path / "a.mp4", pictures(48), info())
    assert len(read_back(tmp_path / "a.mp4")[0]) == 48
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written \(Permission denied\)"):
        open_writer(tmp_path / "a.mp4", info())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written \(No such file or directory\)"):
        open_writer(tmp_path / "no" / "a.mp4", info())


def test_no_picture_at_all(tmp_path: Path) -> None:
    open_writer(tmp_path / "a.mp4", info()).close()


def test_without_pyav_opencv_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writers, "has_pyav", lambda: False)
    with pytest.raises(UserError, match="--codec h264 needs PyAV: pip install av"):
        open_writer(tmp_path / "a.mp4", info(), codec="h264")
    writer = open_writer(tmp_path / "a.mp4", info(rate=25))
    assert isinstance(writer, OpenCvWriter)
    assert writer.summary == "mp4v by OpenCV at a constant 25 frames a second, without sound"
    for i, frame in enumerate(pictures(24)):
        writer.write(frame, i / 24)
    writer.close()
    frames, times = read_back(tmp_path / "a.mp4")
    assert [number_of(f) for f in frames] == list(range(24))
    assert times[-1] == pytest.approx(23 / 25)


def test_h264_is_the_default(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.mp4", info())
    assert isinstance(writer, AvWriter)
    assert writer.summary == "H.264 in an MP4"
    writer.close()
