"""A video through a detector: reading, preparing, detecting, drawing and writing overlap, in a thread each."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from utils.detect.detections import Detections
from utils.detect.detector import Detector
from utils.machine import memory_watch
from utils.video.annotators import Annotator, FrameLog
from utils.video.types import Frame, VideoSource
from utils.video.writers import VideoWriter

STAGES = ("read", "prepare", "detect", "draw", "write")
_MOST_BYTES = 2**30  # of frames under way
_CHANNELS = 4
_LAST_READ = 1.0  # s to wait for a read that is not wanted any more: a stream may be silent
Item = TypeVar("Item")


@dataclass
class StageTime:
    """Seconds of one stage."""

    busy: float = 0.0
    starved: float = 0.0  # waiting for the stage before
    blocked: float = 0.0  # waiting for the stage behind


@dataclass
class PipelineReport:
    """What a pass over a video came to."""

    frames: int = 0  # written
    detections: int = 0
    dropped: int = 0  # frames of a live video that came too fast
    seconds: float = 0.0  # from before the first was read until the file was closed
    stages: dict[str, StageTime] = field(default_factory=dict)
    error: BaseException | None = None  # what ended it before its end
    later_errors: Sequence[BaseException] = ()  # what went wrong after that

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def bottleneck(self) -> str:
        """The stage that all others wait for."""
        return max(self.stages, key=lambda name: self.stages[name].busy)

    def summary(self) -> str:
        """The stages in ms a frame."""
        frames = max(1, self.frames)
        times = ", ".join(f"{name} {1e3 * t.busy / frames:.2f}" for name, t in self.stages.items())
        limit = self.bottleneck()
        share = 100 * self.stages[limit].busy / self.seconds if self.seconds else 0
        waiting = 1e3 * self.stages["detect"].starved / frames
        return f"{times} ms a frame, at once; detect waited {waiting:.2f}; {limit} was busy {share:.0f} % of the time"


class Channel(Generic[Item]):
    """Hands items from one thread to another, at most `size` at a time.

    As in a pipe of the shell, whoever writes learns that nobody reads any more, and whoever reads that no more comes.

    Args:
        drop_oldest: make room rather than wait.
    """

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self._size, self._drop_oldest = size, drop_oldest
        self._items: deque[Item] = deque()
        self._change = threading.Condition()
        self._is_closed = self._is_abandoned = False
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Whether somebody still reads; waits for room."""
        with self._change:
            if self._drop_oldest and len(self._items) == self._size:
                self._items.popleft()
                self.dropped += 1
            while len(self._items) == self._size and not self._is_abandoned:
                self._change.wait()
            if not self._is_abandoned:
                self._items.append(item)
                self._change.notify_all()
            return not self._is_abandoned

    def take(self, most: int = 1, *, fill: bool = False) -> list[Item]:
        """Items in order, at least one, or as many as asked for where `fill`; fewer, or none, at the end."""
        enough = min(most, self._size) if fill else 1
        with self._change:
            while len(self._items) < enough and not self._is_closed:
                self._change.wait()
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._change.notify_all()
            return taken

    def close(self) -> None:
        """No more comes."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def abandon(self) -> None:
        """Nobody reads any more; what is under way is forgotten."""
        with self._change:
            self._is_abandoned = self._is_closed = True
            self._items.clear()
            self._change.notify_all()


class _Prepared(NamedTuple):
    frame: Frame
    sample: Any  # see Detector.prepare


class _Found(NamedTuple):
    frame: Frame
    detections: Detections


class _Picture(NamedTuple):
    seconds: float
    picture: np.ndarray


class VideoPipeline:
    """Runs once over a video.

        with VideoPipeline(source, detector, annotator, writer) as pipeline:
            while not pipeline.wait(0.1):
                ...  # look at pipeline.latest; pipeline.stop()
        report = pipeline.report

    Whatever ends a stage, those before it stop at once and those behind it finish what they have, so that the file is
    whole up to there. Leaving `with` early ends all as soon as each has done what it is at.

    Args:
        log: of every frame, closed at the end.
        keep: leaves the detections that the annotator is given.
        count: leaves those of them that the report counts.
        batch: frames per step of the detector; of what is live as many as there are.
        drop: leave out frames rather than let the source wait.
    """

    def __init__(
        self,
        source: VideoSource,
        detector: Detector,
        annotator: Annotator,
        writer: VideoWriter,
        *,
        log: FrameLog | None = None,
        keep: Callable[[Detections], Detections] = lambda found: found,
        count: Callable[[Detections], Detections] = lambda found: found,
        batch: int = 4,
        drop: bool = False,
    ) -> None:
        self._source, self._detector, self._annotator, self._writer = source, detector, annotator, writer
        self._log = log
        self._keep, self._count, self._fill = keep, count, not (drop or source.info.is_live)
        depth = max(1, min(batch, _MOST_BYTES // (_CHANNELS * source.info.frame_bytes)))
        self._batch = depth
        self._read: Channel[Frame] = Channel(depth, drop_oldest=drop)
        self._prepared: Channel[_Prepared] = Channel(depth)
        self._found: Channel[_Found] = Channel(depth)
        self._drawn: Channel[_Picture] = Channel(depth)
        self._times = {name: StageTime() for name in STAGES}
        self._done = threading.Event()
        self._errors: list[BaseException] = []
        self._ended = 0.0
        self._detections = 0
        self.written = 0  # frames so far
        self.latest: np.ndarray | None = None  # picture

    def __enter__(self) -> "VideoPipeline":
        self._started = time.perf_counter()
        self._threads = ThreadPoolExecutor(len(STAGES), thread_name_prefix="video")
        works = (self._do_read, self._do_prepare, self._do_detect, self._do_draw, self._do_write)
        self._stages = [self._threads.submit(self._noting_errors, work) for work in works]
        return self

    def __exit__(self, *_: object) -> None:
        if not self._done.is_set():
            for channel in (self._read, self._prepared, self._found, self._drawn):
                channel.abandon()
            self._source.stop_waiting()
            self._done.wait()
        reading, *others = self._stages
        wait(others)
        wait([reading], timeout=_LAST_READ)
        self._threads.shutdown(wait=False)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the file is closed, by then."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Read no more; what is detected already is still written."""
        self._read.abandon()
        self._prepared.abandon()
        self._source.stop_waiting()

    @property
    def report(self) -> PipelineReport:
        """After `with`."""
        return PipelineReport(
            frames=self.written,
            detections=self._detections,
            dropped=self._read.dropped,
            seconds=self._ended - self._started,
            stages=self._times,
            error=self._errors[0] if self._errors else None,
            later_errors=self._errors[1:],
        )

    def _noting_errors(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - `report` has it
            self._errors.append(error)

    def _do_read(self) -> None:
        try:
            self._noting_errors(self._read_all)  # before the channel is closed: closing a stream may take its time
        finally:
            self._read.close()
            self._source.close()

    def _read_all(self) -> None:
        times, frames = self._times["read"], self._source.frames()
        while True:
            with _timed(times, "busy"):
                frame = next(frames, None)
            if frame is None:
                return
            with _timed(times, "blocked"):
                is_wanted = self._read.put(frame)
            if not is_wanted:
                return

    def _do_prepare(self) -> None:
        self._pass_on("prepare", self._read, self._prepared, self._prepare)

    def _do_detect(self) -> None:
        self._pass_on("detect", self._prepared, self._found, self._detect, most=self._batch, fill=self._fill)

    def _do_draw(self) -> None:
        try:
            self._pass_on("draw", self._found, self._drawn, self._draw)
        finally:
            with _timed(self._times["draw"], "busy"):
                try:
                    self._annotator.close()
                finally:
                    if self._log is not None:
                        self._log.close()

    def _do_write(self) -> None:
        times = self._times["write"]
        try:
            for (item,) in self._taken(times, self._drawn):
                with _timed(times, "busy"):
                    self._writer.write(item.picture, item.seconds)
                self.written += 1
        finally:
            self._drawn.abandon()
            try:
                with _timed(times, "busy"):
                    self._writer.close()
            finally:
                self._ended = time.perf_counter()
                self._done.set()

    def _prepare(self, frames: Sequence[Frame]) -> list[_Prepared]:
        return [_Prepared(frame, self._detector.prepare(frame.image)) for frame in frames]

    def _detect(self, items: Sequence[_Prepared]) -> list[_Found]:
        with memory_watch(f"frame {items[0].frame.number} of {self._source.info.name}", "lower --imgsz or --batch"):
            found = self._detector.detect([item.sample for item in items])
        return [_Found(item.frame, self._keep(each)) for item, each in zip(items, found, strict=True)]

    def _draw(self, items: Sequence[_Found]) -> list[_Picture]:
        (item,) = items
        picture = self._annotator.annotate(item.frame.number, item.frame.image, item.detections)
        if self._log is not None:
            self._log.add(item.frame, item.detections)
        self._detections += len(self._count(item.detections))
        self.latest = picture
        return [_Picture(item.frame.seconds, picture)]

    def _pass_on(self, name: str, inbox: Channel, outbox: Channel, work: Callable[[list], list], **taking: Any) -> None:
        """Do the work of one stage until no more comes, or nobody wants it."""
        times = self._times[name]
        try:
            for items in self._taken(times, inbox, **taking):
                with _timed(times, "busy"):
                    results = work(items)
                with _timed(times, "blocked"):
                    if not all(outbox.put(result) for result in results):
                        return
        finally:
            inbox.abandon()
            outbox.close()

    @staticmethod
    def _taken(times: StageTime, inbox: Channel, **taking: Any) -> Iterator[list]:
        while True:
            with _timed(times, "starved"):
                items = inbox.take(**taking)
            if not items:
                return
            yield items


@contextmanager
def _timed(times: StageTime, kind: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(times, kind, getattr(times, kind) + time.perf_counter() - started)
