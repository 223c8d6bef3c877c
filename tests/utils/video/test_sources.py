"""Every kind of video that --input takes, and what is wrong with some."""

import functools
import http.server
import io
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.support.videos import number_of, pictures, write_video
from utils.errors import UserError
from utils.images.image_files import write_image
from utils.video import opencv_video
from utils.video import sources as video_sources
from utils.video.av_reader import AvReader, StdinReader
from utils.video.opencv_video import OpenCvReader
from utils.video.sources import Camera, ImageFrames, Stream, natural_order, open_video, redact_credentials
from utils.video.types import MAX_PIXELS, Clock, Frame, VideoError, VideoSource, check_size, plausible_rate


def read(wish: object, **arguments: object) -> list[Frame]:
    source = open_video(str(wish), **arguments)
    try:
        return list(source.frames())
    finally:
        source.close()


def read_until_it_fails(source: VideoSource, frames: list[Frame]) -> None:
    for frame in source.frames():
        frames.append(frame)  # noqa: PERF402 - what came before the error counts


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "libx264", "yuv444p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_files_of_many_kinds(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    write_video(tmp_path / name, pictures(30), codec=codec, pixels=pixels, rate=25)
    source = open_video(str(tmp_path / name))
    info = source.info
    frames = list(source.frames())
    assert (info.height, info.width, info.stem, info.is_live) == (64, 96, "a", False)
    if codec != "mpeg4":  # AVI has ticks of our time base as its rate
        assert info.rate == 25
        np.testing.assert_allclose([f.seconds for f in frames], np.arange(30) / 25, atol=2e-3)
    assert [f.number for f in frames] == list(range(30))
    assert [number_of(f.image) for f in frames] == list(range(30))
    assert frames[0].image.dtype == np.uint8


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_videos_of_a_turned_telephone_are_upright(tmp_path: Path, rotation: int) -> None:
    """Fault of the predecessor: portrait images were halved."""
    stored = np.full((64, 96, 3), 128, np.uint8)
    stored[:16, :16] = (255, 0, 0)  # at the top left as stored
    path = write_video(tmp_path / "a.mp4", [stored] * 3, rotation=rotation)
    source = open_video(str(path))
    image = next(source.frames()).image
    expected = np.rot90(stored, rotation // 90)  # counter-clockwise, as FFmpeg's display matrix has it
    assert image.shape == expected.shape == (source.info.height, source.info.width, 3)
    assert np.abs(image.astype(int) - expected).mean() < 6
    capture = cv2.VideoCapture(str(path))  # which turns videos too
    theirs = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    assert np.abs(image.astype(int) - theirs).mean() < 6


def test_a_variable_rate_keeps_its_moments(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 0.5, 0.54, 2.0]
    frames = read(write_video(tmp_path / "a.mp4", pictures(6), times=times))
    np.testing.assert_allclose([f.seconds for f in frames], times, atol=1e-3)


def test_a_video_that_starts_late_keeps_the_distance_to_its_sound(tmp_path: Path) -> None:
    times = [0.5 + i / 24 for i in range(24)]
    frames = read(write_video(tmp_path / "a.mkv", pictures(24), times=times, sound="aac"))
    assert frames[0].seconds == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("size", [(65, 97), (2, 96), (1, 640), (640, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    """PNG frames have no need of even sides."""
    frames = read(write_video(tmp_path / "a.mov", [np.full((*size, 3), 90, np.uint8)] * 3, codec="png", pixels="rgb24"))
    assert [f.image.shape for f in frames] == [(*size, 3)] * 3


@pytest.mark.parametrize("content", [b"hello " * 1000, np.random.default_rng(0).bytes(100_000), b"\0" * 5000])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: (cannot be opened as a video|it has no video|not one picture)"):
        open_video(str(tmp_path / "a.mp4"))


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(VideoError, match=r"a\.mp4: the file is empty"):
        open_video(str(tmp_path / "a.mp4"))


def test_a_missing_file_names_its_neighbor(tmp_path: Path) -> None:
    """Fault of the predecessor: a missing input raised AttributeError."""
    (tmp_path / "video.mp4").touch()
    with pytest.raises(UserError, match=r"video1\.mp4: no such file or folder; did you mean .*video\.mp4\?"):
        open_video(str(tmp_path / "video1.mp4"))


def test_an_image_is_told_where_to_go(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", pictures(1)[0])
    with pytest.raises(UserError, match=r"is an image: use inference\.py"):
        open_video(str(tmp_path / "a.jpg"))


def test_sound_alone(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", pictures(24), sound="aac")
    import av

    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mp4"), "w") as made:
        copy = made.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = copy
                made.mux(packet)
    with pytest.raises(VideoError, match=r"b\.mp4: contains no video, only audio"):
        open_video(str(tmp_path / "b.mp4"))


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", None), ("a.mkv", None), ("a.mkv", "aac")])
def test_a_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path, name: str, sound: str | None) -> None:
    options = {"movflags": "+faststart"} if name == "a.mp4" else None
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(120)]
    path = write_video(tmp_path / name, noise, options=options, sound=sound)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    source, frames = open_video(str(path)), []
    with pytest.raises(
        VideoError, match=r"ends after frame \d+, at .* s of the 5\.0 s .* truncated or damaged|reading failed"
    ):
        read_until_it_fails(source, frames)
    assert 50 < len(frames) < 90


def test_an_index_that_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pictures(48))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be opened as a video"):
        open_video(str(path))


def test_damage_in_the_middle_leaves_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "a.mp4", noise, options={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert 30 < len(read(path)) <= 60
    assert "damaged packet could not be decoded" in caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_damage_anywhere_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    """Fault: a codec that FFmpeg does not know raised AttributeError."""
    kind = {"codec": "mpeg4"} if name == "a.avi" else {"sound": "aac"}
    path = write_video(tmp_path / name, pictures(12, 32, 48), **kind)
    whole, rng, told = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 12)):
            place = int(rng.integers(len(data) if rng.random() < 0.5 else min(len(data), 1200)))
            data[place : place + 4] = (bytes(4), b"\xff" * 4, rng.bytes(4))[rng.integers(3)]
        path.write_bytes(data[: len(data) - int(rng.integers(len(data) // 2)) * int(rng.integers(2))])
        try:
            source = open_video(str(path))
            for frame in source.frames():
                assert frame.image.shape == (source.info.height, source.info.width, 3)
        except VideoError as error:
            told.append(str(error))
    assert len(told) > 20
    assert not any("\n" in words for words in told)


def test_a_playlist_in_disguise_opens_nothing(tmp_path: Path) -> None:
    """A stranger's file may name other files, and addresses of the network of whoever opens it."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

    with Serving(Handler) as address:
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", f"{address}/secret.ts", "#EXT-X-ENDLIST", ""]
        (tmp_path / "a.mp4").write_text("\n".join(lines))
        with pytest.raises(VideoError, match=r"a\.mp4: "):
            open_video(str(tmp_path / "a.mp4"))
    assert requests == []


def test_frames_too_large_are_refused() -> None:
    check_size("a", 8192, 8192)
    with pytest.raises(VideoError, match=r"a: frames of 8193 x 8192 px are too large"):
        check_size("a", 8192, 8193)
    assert MAX_PIXELS == 8192 * 8192


def test_rates_and_moments_of_liars() -> None:
    assert [plausible_rate(r) for r in (None, 0, -1, float("nan"), 1e6)] == [None] * 5
    assert plausible_rate(29.97002997002997) == Fraction(30000, 1001)
    clock = Clock(Fraction(10))
    claims = [0.0, 0.1, 0.1, None, 0.05, 1e18, float("nan"), 0.7]
    np.testing.assert_allclose([clock.seconds(c) for c in claims], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert Clock(Fraction(10)).seconds(-1e18) == 0


def test_a_folder_of_frames_in_natural_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, picture in enumerate(pictures(12)):
        write_image(tmp_path / f"frame_{i}.png", picture)
    (tmp_path / "notes.txt").touch()
    assert [number_of(f.image) for f in read(tmp_path)] == list(range(12))
    assert [number_of(f.image) for f in read(tmp_path / "frame_*.png")] == list(range(12))
    frames = read(tmp_path, fps=10)
    np.testing.assert_allclose([f.seconds for f in frames], np.arange(12) / 10)
    write_image(tmp_path / "frame_3.png", pictures(4, 32, 48)[3])
    (tmp_path / "frame_5.png").write_bytes(b"no")
    source, frames = ImageFrames(list(tmp_path.glob("*.png")), "x", None), []
    with pytest.raises(VideoError, match=r"1 of 12 frames could not be read: .*frame_5\.png"):
        read_until_it_fails(source, frames)
    got = [(frame.number, number_of(frame.image)) for frame in frames]
    assert got == list(enumerate(n for n in range(12) if n != 5))
    assert "frame_3.png: frames of other sizes are resized to 96 x 64 px" in caplog.text


def test_folders_and_patterns_without_frames(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frames"):
        open_video(str(tmp_path))
    with pytest.raises(UserError, match="no file matches this pattern"):
        open_video(str(tmp_path / "*.png"))


def test_natural_order() -> None:
    names = ["a10.png", "a9.png", "b.png", "10.png", "9.png", "a.png"]
    ordered = sorted(map(Path, names), key=natural_order)
    assert [p.name for p in ordered] == ["9.png", "10.png", "a.png", "a9.png", "a10.png", "b.png"]
    names = ["s10/1.png", "s9/2.png", "s9/2.jpg", "s9/1.png", "s10/01.png"]
    ordered = sorted(map(Path, names), key=natural_order)
    assert [p.as_posix() for p in ordered] == ["s9/1.png", "s9/2.jpg", "s9/2.png", "s10/01.png", "s10/1.png"]


def test_frames_of_several_folders_come_folder_by_folder(tmp_path: Path) -> None:
    for i, picture in enumerate(pictures(6)):
        write_image(folder_of(tmp_path, f"shot_{8 + i // 3}") / f"frame_{i % 3}.png", picture)
    source = open_video(str(tmp_path / "**" / "*.png"))
    assert [number_of(f.image) for f in source.frames()] == list(range(6))
    assert source.info.stem == "frames"
    assert open_video(str(tmp_path / "shot_*" / "*.png")).info.stem == "frames"
    assert open_video(str(tmp_path / "shot_8" / "*.png")).info.stem == "shot_8"


def folder_of(parent: Path, name: str) -> Path:
    (parent / name).mkdir(exist_ok=True)
    return parent / name


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_standard_input(tmp_path: Path, name: str) -> None:
    options = {"movflags": "+faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, pictures(24), options=options)
    with path.open("rb") as file:
        source = AvReader(StdinReader(file), name="standard input", stem="stdin")
        assert [number_of(f.image) for f in source.frames()] == list(range(24))


def test_standard_input_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello" * 100)
    with (tmp_path / "a").open("rb") as file, pytest.raises(VideoError, match=r"standard input: .*faststart"):
        AvReader(StdinReader(file), name="standard input", stem="stdin")


def test_standard_input_whose_index_comes_last(tmp_path: Path) -> None:
    """Long enough that FFmpeg has let the pictures go when it comes to the index."""
    video = ROOT / "example_test_data" / "video_1.mp4"
    feed = subprocess.Popen(["cat", video], stdout=subprocess.PIPE)
    with feed, feed.stdout as pipe, pytest.raises(VideoError, match=r"standard input: cannot be read .*faststart"):
        AvReader(StdinReader(pipe), name="standard input", stem="stdin")


def test_a_pipe_that_is_silent_can_be_left() -> None:
    """Ctrl-C ends a script that waits for `ffmpeg ... | inference_video.py -i -`."""
    end, other = os.pipe()
    with io.FileIO(end) as file:
        pipe = StdinReader(file)
        threading.Timer(0.1, pipe.close).start()
        started = time.monotonic()
        assert pipe.read(100) == b""
        assert time.monotonic() - started < 2
    os.close(other)


class FakeCapture:
    """A camera that is unplugged after three frames."""

    def __init__(self, number: int) -> None:
        self.left = [] if number else pictures(4)

    def isOpened(self) -> bool:
        return bool(self.left)

    def get(self, key: int) -> float:
        return 15.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self) -> None:
        pass


def test_a_camera_that_is_unplugged() -> None:
    camera, frames = Camera(0, None, FakeCapture), []
    assert camera.info.is_live
    assert camera.info.rate == 15
    with pytest.raises(VideoError, match=r"camera 0: returned no picture after frame 3: check its connection"):
        read_until_it_fails(camera, frames)
    assert len(frames) == 3
    assert frames[0].seconds < frames[1].seconds < frames[2].seconds
    with pytest.raises(VideoError, match=r"camera 7: returns no picture: check that it is plugged in"):
        Camera(7, None, FakeCapture)


class Serving:
    """A web server on a free port of this machine."""

    def __init__(self, handler: type) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Breaking(http.server.BaseHTTPRequestHandler):
    """Serves `data`, but breaks off after `whole` bytes of the first `breaks` answers; then there is nothing more."""

    def __init__(self, data: bytes, whole: int, answers: Iterator[str], *args: object) -> None:
        self.data, self.whole, self.answers = data, whole, answers
        super().__init__(*args)

    def do_GET(self) -> None:
        answer = next(self.answers, "404")
        if answer == "404":
            self.send_error(404)
            return
        self.send_response(200)
        if answer != "endless":
            self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data if answer == "all" else self.data[: self.whole])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A file of several hundred kilobytes, so that it does not arrive in one piece."""
    rng = np.random.default_rng(0)
    frames = [np.concatenate([p, rng.integers(0, 255, (64, 96, 3), np.uint8)]) for p in pictures(120)]
    return write_video(tmp_path / "a.mkv", frames)


def top(frame: Frame) -> int:
    return number_of(frame.image[:64])


def test_a_stream_that_breaks_off_goes_on_where_it_was(noisy: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = noisy.read_bytes()
    handler = functools.partial(Breaking, data, len(data) // 2, iter(["half", "404", "all"]))
    caplog.set_level(logging.INFO)
    with Serving(handler) as address:
        stream = Stream(f"{address}/a.mkv", None, 5, first_wait=0.01)
        frames = list(stream.frames())
    assert [f.number for f in frames] == list(range(len(frames)))
    assert sorted(set(map(top, frames))) == list(range(120))
    assert len(frames) == 120
    assert "connection lost after frame" in caplog.text
    assert "attempt 2 of 5 in 0.02 s" in caplog.text


def test_a_stream_that_stays_away_is_given_up(noisy: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = noisy.read_bytes()
    handler = functools.partial(Breaking, data, len(data) // 2, iter(["half"]))
    with Serving(handler) as address:
        stream, frames = Stream(f"{address}/a.mkv", None, 2, first_wait=0.01), []
        with pytest.raises(VideoError, match=r"connection lost after frame \d+ \(.*\); 2 attempts to reconnect failed"):
            read_until_it_fails(stream, frames)
    assert len(frames) > 30


def test_a_stream_that_nobody_wants_any_more_is_not_waited_for(noisy: Path) -> None:
    """Ctrl-C while it is away ended the video at once, and the process half a minute later."""
    data = noisy.read_bytes()
    handler = functools.partial(Breaking, data, len(data) // 2, iter(["half"]))
    with Serving(handler) as address:
        stream = Stream(f"{address}/a.mkv", None, 5, first_wait=20)
        threading.Timer(0.5, stream.stop_waiting).start()
        started = time.monotonic()
        assert len(list(stream.frames())) > 30
    assert time.monotonic() - started < 10


def test_a_stream_that_is_not_there() -> None:
    with pytest.raises(VideoError, match=r"^http://127\.0\.0\.1:9/x: cannot be opened .*\(Connection refused\)"):
        open_video("http://me:secret@127.0.0.1:9/x?key=1")


def test_passwords_are_not_told() -> None:
    assert redact_credentials("rtsp://user:secret@host:554/live?token=1") == "rtsp://host:554/live"


def test_without_pyav_opencv_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", pictures(24), rate=25)
    for module in (opencv_video, video_sources):
        monkeypatch.setattr(module, "has_pyav", lambda: False)
    source = open_video(str(path))
    assert isinstance(source, OpenCvReader)
    assert source.info.rate == 25
    assert [number_of(f.image) for f in source.frames()] == list(range(24))
    with pytest.raises(UserError, match="standard input needs PyAV: pip install av"):
        open_video("-")
