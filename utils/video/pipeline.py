"""Threaded video pipeline: reading, preprocessing, detection, drawing and writing overlap, one thread each."""

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
from utils.machine import explain_out_of_memory
from utils.video.annotators import Annotator, FrameLog
from utils.video.types import Frame, VideoSource
from utils.video.writers import VideoWriter

STAGES = ("read", "prepare", "detect", "draw", "write")
_MAX_BYTES = 2**30  # of frames in flight
_CHANNELS = 4
_READ_TIMEOUT = 1.0  # s to wait for a pending read at the end: a stream may be silent
Item = TypeVar("Item")


@dataclass
class StageTime:
    """Seconds spent by one stage."""

    busy: float = 0.0
    starved: float = 0.0  # waiting for input
    blocked: float = 0.0  # waiting for the next stage


@dataclass
class PipelineReport:
    """Statistics and errors of a run over a video."""

    frames: int = 0  # written
    detections: int = 0
    dropped: int = 0  # frames of a live video that arrived too fast
    seconds: float = 0.0  # from the first read to the closed file
    stages: dict[str, StageTime] = field(default_factory=dict)
    error: BaseException | None = None  # the error that ended it early
    later_errors: Sequence[BaseException] = ()  # errors after that one

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0

    def bottleneck(self) -> str:
        """Return the busiest stage."""
        return max(self.stages, key=lambda name: self.stages[name].busy)

    def summary(self) -> str:
        """Describe the time of each stage in ms per frame."""
        frames = max(1, self.frames)
        times = ", ".join(f"{name} {1e3 * t.busy / frames:.2f}" for name, t in self.stages.items())
        bottleneck = self.bottleneck()
        percentage = 100 * self.stages[bottleneck].busy / self.seconds if self.seconds else 0
        waiting = 1e3 * self.stages["detect"].starved / frames
        return (
            f"{times} ms a frame, overlapped; detect waited {waiting:.2f}; "
            f"{bottleneck} was busy {percentage:.0f} % of the time"
        )


class Channel(Generic[Item]):
    """Bounded queue between two threads.

    As in a shell pipe, the writer learns that the reader has gone, and the reader that no more items follow.

    Args:
        drop_oldest: when full, drop the oldest item instead of waiting.
    """

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self._size, self._drop_oldest = size, drop_oldest
        self._items: deque[Item] = deque()
        self._change = threading.Condition()
        self._is_closed = self._is_abandoned = False
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Append an item, waiting for room; return False if the reader has gone."""
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

    def take(self, maximum: int = 1, *, fill: bool = False) -> list[Item]:
        """Take at least one item, or `maximum` items if `fill`, in order; fewer, or none, at the end."""
        minimum = min(maximum, self._size) if fill else 1
        with self._change:
            while len(self._items) < minimum and not self._is_closed:
                self._change.wait()
            taken = [self._items.popleft() for _ in range(min(maximum, len(self._items)))]
            self._change.notify_all()
            return taken

    def close(self) -> None:
        """Signal that no more items follow."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def abandon(self) -> None:
        """Signal that the reader has gone; discard all items."""
        with self._change:
            self._is_abandoned = self._is_closed = True
            self._items.clear()
            self._change.notify_all()


class _Prepared(NamedTuple):
    frame: Frame
    sample: Any  # see Detector.prepare


class _Detected(NamedTuple):
    frame: Frame
    detections: Detections


class _Picture(NamedTuple):
    seconds: float
    picture: np.ndarray


class VideoPipeline:
    """Runs a detector once over a video.

        with VideoPipeline(source, detector, annotator, writer) as pipeline:
            while not pipeline.wait(0.1):
                ...  # show pipeline.latest, or call pipeline.stop()
        report = pipeline.report

    When a stage ends or fails, the stages before it stop at once and those after it finish their items, so that the
    file is complete up to that frame. Leaving `with` early stops every stage after its current item.

    Args:
        log: log of every frame, closed at the end.
        keep: selects the detections passed to the annotator.
        count: selects those of them that the report counts.
        batch: frames per call of the detector; at most, for live videos.
        drop: drop frames instead of letting the source wait.
    """

    def __init__(
        self,
        source: VideoSource,
        detector: Detector,
        annotator: Annotator,
        writer: VideoWriter,
        *,
        log: FrameLog | None = None,
        keep: Callable[[Detections], Detections] = lambda detections: detections,
        count: Callable[[Detections], Detections] = lambda detections: detections,
        batch: int = 4,
        drop: bool = False,
    ) -> None:
        self._source, self._detector, self._annotator, self._writer = source, detector, annotator, writer
        self._log = log
        self._keep, self._count, self._fill = keep, count, not (drop or source.info.is_live)
        depth = max(1, min(batch, _MAX_BYTES // (_CHANNELS * source.info.frame_bytes)))
        self._batch = depth
        self._read: Channel[Frame] = Channel(depth, drop_oldest=drop)
        self._prepared: Channel[_Prepared] = Channel(depth)
        self._detected: Channel[_Detected] = Channel(depth)
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
        self._pool = ThreadPoolExecutor(len(STAGES), thread_name_prefix="video")
        stages = (self._do_read, self._do_prepare, self._do_detect, self._do_draw, self._do_write)
        self._stages = [self._pool.submit(self._record_errors, stage) for stage in stages]
        return self

    def __exit__(self, *_: object) -> None:
        if not self._done.is_set():
            for channel in (self._read, self._prepared, self._detected, self._drawn):
                channel.abandon()
            self._source.stop_waiting()
            self._done.wait()
        reading, *others = self._stages
        wait(others)
        wait([reading], timeout=_READ_TIMEOUT)
        self._pool.shutdown(wait=False)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait; return True once the file is closed."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Stop reading; frames already detected are still written."""
        self._read.abandon()
        self._prepared.abandon()
        self._source.stop_waiting()

    @property
    def report(self) -> PipelineReport:
        """The statistics, complete after `with`."""
        return PipelineReport(
            frames=self.written,
            detections=self._detections,
            dropped=self._read.dropped,
            seconds=self._ended - self._started,
            stages=self._times,
            error=self._errors[0] if self._errors else None,
            later_errors=self._errors[1:],
        )

    def _record_errors(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - part of `report`
            self._errors.append(error)

    def _do_read(self) -> None:
        try:
            self._record_errors(self._read_all)  # errors are recorded before close(), which may be slow
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
                has_reader = self._read.put(frame)
            if not has_reader:
                return

    def _do_prepare(self) -> None:
        self._run_stage("prepare", self._read, self._prepared, self._prepare)

    def _do_detect(self) -> None:
        self._run_stage("detect", self._prepared, self._detected, self._detect, maximum=self._batch, fill=self._fill)

    def _do_draw(self) -> None:
        try:
            self._run_stage("draw", self._detected, self._drawn, self._draw)
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
            for (item,) in self._items(times, self._drawn):
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

    def _detect(self, items: Sequence[_Prepared]) -> list[_Detected]:
        step = f"frame {items[0].frame.number} of {self._source.info.name}"
        with explain_out_of_memory(step, "lower --imgsz or --batch"):
            results = self._detector.detect([item.sample for item in items])
        return [_Detected(item.frame, self._keep(result)) for item, result in zip(items, results, strict=True)]

    def _draw(self, items: Sequence[_Detected]) -> list[_Picture]:
        (item,) = items
        picture = self._annotator.annotate(item.frame.number, item.frame.image, item.detections)
        if self._log is not None:
            self._log.add(item.frame, item.detections)
        self._detections += len(self._count(item.detections))
        self.latest = picture
        return [_Picture(item.frame.seconds, picture)]

    def _run_stage(
        self, name: str, inbox: Channel, outbox: Channel, process: Callable[[list], list], **take_options: Any
    ) -> None:
        """Process items until the input ends or the reader has gone."""
        times = self._times[name]
        try:
            for items in self._items(times, inbox, **take_options):
                with _timed(times, "busy"):
                    results = process(items)
                with _timed(times, "blocked"):
                    if not all(outbox.put(result) for result in results):
                        return
        finally:
            inbox.abandon()
            outbox.close()

    @staticmethod
    def _items(times: StageTime, inbox: Channel, **take_options: Any) -> Iterator[list]:
        while True:
            with _timed(times, "starved"):
                items = inbox.take(**take_options)
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
