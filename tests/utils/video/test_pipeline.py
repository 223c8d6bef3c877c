"""Frames through threads: order, bounded memory, ends of every kind."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.support.videos import number_of, pictures
from utils.detect.detections import Detections
from utils.detect.detector import Detector, DetectorInfo
from utils.loading.size_rule import SizeRule
from utils.video.pipeline import Channel, PipelineReport, VideoPipeline
from utils.video.types import Frame, VideoError, VideoInfo, VideoSource

log = logging.getLogger(__name__)


class Source(VideoSource):
    """`count` frames; then `error`, if there is one."""

    def __init__(
        self, count: int, *, error: Exception | None = None, live: bool = False, pause: float = 0, size: int = 64
    ) -> None:
        self.info = VideoInfo("a video", "a", size, 96, Fraction(24), is_live=live)
        self.count, self.error, self.pause = count, error, pause
        self.given = 0
        self.is_closed = False

    def frames(self) -> Iterator[Frame]:
        images = pictures(256, self.info.height)
        for i in range(self.count):
            time.sleep(self.pause)
            self.given += 1
            yield Frame(i, i / 24, images[i % 256])
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.is_closed = True


class Stub(Detector):
    """Finds one box, of the frame's number."""

    def __init__(self, seconds: float = 0, fails_at: int | None = None) -> None:
        super().__init__(DetectorInfo("stub", ("__background__", "a"), SizeRule(64), "cpu", source="nowhere"))
        self.seconds, self.fails_at, self.batches = seconds, fails_at, []

    def prepare(self, image: np.ndarray) -> int:
        return number_of(image)

    def detect(self, prepared: Sequence[int]) -> list[Detections]:
        time.sleep(self.seconds)
        self.batches.append(list(prepared))
        if self.fails_at in prepared:
            raise ValueError("the detector")
        return [
            Detections(np.array([[n, 0, n + 9, 9]], np.float32), np.array([0.9], np.float32), np.array([1]))
            for n in prepared
        ]


class Annotator:
    """Checks that each frame comes with its own detections, in one thread."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.numbers, self.threads, self.fails_at = [], set(), fails_at
        self.is_closed = False

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        if number == self.fails_at:
            raise ValueError("the annotator")
        self.numbers.append(number)
        self.threads.add(threading.get_ident())
        assert detections.boxes[0, 0] == number_of(frame) == number % 256
        return frame.copy()

    def close(self) -> None:
        self.is_closed = True


class Writer:
    """Keeps the numbers of what is written."""

    path, words = Path("a.mp4"), "a list"

    def __init__(self, seconds: float = 0, fails_at: int | None = None) -> None:
        self.seconds, self.fails_at, self.numbers, self.moments = seconds, fails_at, [], []
        self.is_closed = False

    def write(self, picture: np.ndarray, seconds: float) -> None:
        time.sleep(self.seconds)
        if len(self.numbers) == self.fails_at:
            raise OSError(28, "No space left on device", "a.mp4")
        self.numbers.append(number_of(picture))
        self.moments.append(seconds)

    def close(self) -> None:
        self.is_closed = True


def run(source: Source, detector: Stub, annotator: Annotator, writer: Writer, **wish: object) -> PipelineReport:
    with VideoPipeline(source, detector, annotator, writer, **wish) as pipeline:
        assert pipeline.wait(20)
    assert source.is_closed
    assert annotator.is_closed
    assert writer.is_closed
    assert not [t for t in threading.enumerate() if t.name.startswith("video") and t.is_alive() and busy(t)]
    return pipeline.report


def busy(thread: threading.Thread) -> bool:
    """Return True if a thread of a closed pool is still running."""
    thread.join(2)
    return thread.is_alive()


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_every_frame_once_and_in_order(batch: int) -> None:
    detector, annotator, writer = Stub(), Annotator(), Writer()
    report = run(Source(50), detector, annotator, writer, batch=batch)
    assert annotator.numbers == writer.numbers == list(range(50))
    assert writer.moments == [i / 24 for i in range(50)]
    assert len(annotator.threads) == 1
    assert [len(b) for b in detector.batches] == [batch] * (50 // batch) + [50 % batch] * (50 % batch > 0)
    assert (report.frames, report.detections, report.dropped, report.error) == (50, 50, 0, None)


def test_no_frames() -> None:
    assert run(Source(0), Stub(), Annotator(), Writer()).frames == 0


def test_what_is_kept_is_what_counts() -> None:
    class Nothing(Annotator):
        def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
            assert len(detections) == 0
            return frame

    report = run(Source(10), Stub(), Nothing(), Writer(), keep=lambda found: found.filtered(0.95))
    assert (report.frames, report.detections) == (10, 0)


def test_memory_is_bounded_whatever_is_slow() -> None:
    """The reader is never more than the channels' frames and one of each stage ahead of the writer."""
    source, writer = Source(200), Writer(0.02)
    with VideoPipeline(source, Stub(), Annotator(), writer, batch=4) as pipeline:
        ahead = []
        for _ in range(20):
            time.sleep(0.01)
            ahead.append(source.given - len(writer.numbers))
        pipeline.stop()
    assert 8 < max(ahead) <= 4 * 4 + 4 + 5


def test_huge_frames_are_fewer_under_way() -> None:
    info = VideoInfo("a", "a", 8192, 8192, Fraction(24))
    source = Source(1)
    source.info = info
    pipeline = VideoPipeline(source, Stub(), Annotator(), Writer(), batch=16)
    assert pipeline._batch == 1


def test_stages_run_side_by_side() -> None:
    """80 ms of detection a batch of 4, 20 ms of writing and 20 ms of reading a frame: a third of their sum."""
    source = Source(40, pause=0.02)
    started = time.perf_counter()
    report = run(source, Stub(0.08), Annotator(), Writer(0.02), batch=4)
    assert time.perf_counter() - started < 0.7 * (40 * 0.02 * 2 + 10 * 0.08)
    assert report.seconds == pytest.approx(time.perf_counter() - started, abs=0.4)
    assert report.stages["detect"].busy == pytest.approx(0.8, abs=0.4)
    assert "detect" in report.summary()


def test_a_source_that_ends_before_its_end_costs_nothing_of_what_came() -> None:
    writer = Writer()
    report = run(Source(30, error=VideoError("a: cut off")), Stub(), Annotator(), writer)
    assert writer.numbers == list(range(30))
    assert str(report.error) == "a: cut off"


def test_an_error_is_told_although_the_source_is_slow_to_close() -> None:
    class Slow(Source):
        def close(self) -> None:
            gone.wait(5)
            super().close()

    gone = threading.Event()
    with VideoPipeline(Slow(3, error=VideoError("a: gone")), Stub(), Annotator(), Writer()) as pipeline:
        assert pipeline.wait(20)
    assert str(pipeline.report.error) == "a: gone"
    gone.set()


def test_what_goes_wrong_after_an_error_is_told_too() -> None:
    class Unclosable(Annotator):
        def close(self) -> None:
            super().close()
            raise OSError(28, "No space left on device", "a_counts.json")

    report = run(Source(9, error=VideoError("a: cut off")), Stub(), Unclosable(), Writer())
    assert str(report.error) == "a: cut off"
    assert ["a_counts.json" in str(error) for error in report.later_errors] == [True]


def test_the_report_counts_what_it_is_told_to() -> None:
    report = run(Source(10), Stub(), Annotator(), Writer(), count=lambda found: found.filtered(0.95))
    assert (report.frames, report.detections) == (10, 0)


@pytest.mark.parametrize(
    ("detector", "annotator", "writer", "words", "at_least"),
    [
        (Stub(fails_at=21), Annotator(), Writer(), "the detector", 20),
        (Stub(), Annotator(fails_at=21), Writer(), "the annotator", 21),
        (Stub(), Annotator(), Writer(fails_at=21), "No space left", 21),
    ],
)
def test_an_error_ends_all_stages_at_once_and_is_told_once(detector, annotator, writer, words, at_least) -> None:
    source = Source(100_000)
    started = time.perf_counter()
    report = run(source, detector, annotator, writer)
    assert time.perf_counter() - started < 5
    assert words in str(report.error)
    assert writer.numbers == list(range(at_least))
    assert source.given < 100


def test_stopping_writes_what_was_detected() -> None:
    source, writer = Source(100_000, pause=0.001), Writer()
    with VideoPipeline(source, Stub(0.01), Annotator(), writer) as pipeline:
        while pipeline.written < 10:
            assert not pipeline.wait(0.01)
        pipeline.stop()
        assert pipeline.wait(5)
    report = pipeline.report
    assert report.error is None
    assert writer.is_closed
    assert 10 <= len(writer.numbers) < 1000
    assert writer.numbers == [n % 256 for n in range(report.frames)]


def test_leaving_early_ends_all_threads_and_closes_the_file() -> None:
    """Leaving early is what a second Ctrl-C does."""
    source, annotator, writer = Source(100_000), Annotator(), Writer(0.001)
    with VideoPipeline(source, Stub(), annotator, writer) as pipeline:
        pipeline.wait(0.05)
    assert writer.is_closed
    assert annotator.is_closed


def test_a_source_that_waits_for_ever_does_not_hold_up_the_end() -> None:
    class Silent(Source):
        def frames(self) -> Iterator[Frame]:
            yield from super().frames()
            waiting.wait(5)

    waiting = threading.Event()
    writer, started = Writer(), time.perf_counter()
    with VideoPipeline(Silent(3), Stub(), Annotator(), writer, batch=1) as pipeline:
        while pipeline.written < 3:
            pipeline.wait(0.01)
        pipeline.stop()
        assert pipeline.wait(1)
    assert time.perf_counter() - started < 3
    assert writer.numbers == [0, 1, 2]
    waiting.set()


def test_a_live_source_is_not_held_up() -> None:
    source, writer = Source(60, live=True, pause=0.002), Writer()
    report = run(source, Stub(0.03), Annotator(), writer, drop=True)
    assert report.dropped > 20
    assert report.frames + report.dropped == 60
    assert writer.numbers == sorted(writer.numbers)


def test_full_memory_names_the_frame_and_the_remedy() -> None:
    class Full(Stub):
        def detect(self, prepared: Sequence[int]) -> list[Detections]:
            raise MemoryError

    error = run(Source(8), Full(), Annotator(), Writer()).error
    assert str(error) == "frame 0 of a video: the memory of this machine is full: lower --imgsz or --batch"


def test_a_channel_is_a_pipe() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.put(1)
    assert channel.put(2)
    threading.Timer(0.05, channel.take).start()
    assert channel.put(3), "once there is room"
    channel.close()
    assert channel.take(5) == [2, 3]
    assert channel.take() == []
    other: Channel[int] = Channel(1)
    other.put(1)
    threading.Timer(0.05, other.abandon).start()
    assert not other.put(2), "nobody reads any more"
    assert other.take() == []


def test_a_channel_drops_the_oldest_or_fills() -> None:
    channel: Channel[int] = Channel(2, drop_oldest=True)
    assert all(channel.put(n) for n in range(5))
    assert channel.take(2) == [3, 4]
    assert channel.dropped == 3
    full: Channel[int] = Channel(3)
    threading.Thread(target=lambda: [(time.sleep(0.01), full.put(n)) for n in range(4)] and full.close()).start()
    assert full.take(3, fill=True) == [0, 1, 2]
    assert full.take(3, fill=True) == [3]
