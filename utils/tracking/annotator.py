"""Tracking of one video, from its frames and detections to pictures, counts and files."""

import logging
import math
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from utils.cli.options import TrackingOptions
from utils.cli.points import in_pixels
from utils.detect.detections import Detections
from utils.tracking.counting import LineCounter, UniqueCounter, ZoneCounter
from utils.tracking.drawing import LineView, TrackedFrame, ZoneView, draw_tracked
from utils.tracking.logs import CountLog, MotLog, TrackLog
from utils.tracking.tracker import Tracker, create_tracker
from utils.tracking.tracks import Tracks

_TRAIL = 1.5  # s
log = logging.getLogger(__name__)


class TrackAnnotator:
    """Follows, counts, logs and draws one video.

    `follow` must see every frame in order; `draw` may run in another thread, on other frames. `annotate` does both.
    Detections are those of `lowest_score` and above, of the classes that are to be followed.

    Args:
        tracker: a new one.
        class_names: class_names[0] is the background.
        options: buffer, lines, zones and trails.
        path: folder and name of the video; the files are NAME_tracks.txt and NAME_counts.json.
        width, height: px of its frames.
        fps: of those that are followed.
        show_labels: write name and id at each box.
        log_json: write NAME_tracks.json too.

    Raises:
        UserError: a line or zone is outside the picture.
    """

    def __init__(
        self, tracker: Tracker, class_names: Sequence[str], options: TrackingOptions, path: Path, *,
        width: int, height: int, fps: float, show_labels: bool = True, log_json: bool = False,
    ) -> None:  # fmt: skip
        self.lowest_score = tracker.lowest_score
        self._tracker = tracker
        self._class_names = class_names
        self._show_labels = show_labels
        lines = [in_pixels(points, width, height, "--count-line") for points in options.count_line or ()]
        zones = [in_pixels(points, width, height, "--count-zone") for points in options.count_zone or ()]
        self._lines = [LineCounter(*points) for points in lines]
        self._zones = [ZoneCounter(points) for points in zones]
        self._unique = UniqueCounter()
        self._frames = 0
        patience = math.ceil(options.track_buffer * fps) + 1  # frames, after which no track comes back
        self._trails = None if options.no_trails else _Trails(math.ceil(_TRAIL * fps), patience)
        self._mot = MotLog(path.with_name(f"{path.name}_tracks.txt"))
        self._json = TrackLog(path.with_name(f"{path.name}_tracks.json"), class_names, patience) if log_json else None
        self._count_log = CountLog(path.with_name(f"{path.name}_counts.json"))

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """A picture of the next frame; `number` counts from 0. The frame is left alone."""
        return self.draw(frame, self.follow(number, frame, detections))

    def follow(self, number: int, frame: np.ndarray, detections: Detections) -> TrackedFrame:
        """Track, count and log the next frame, (H, W, 3) uint8 RGB, whose `number` counts from 0."""
        tracks = self._tracker.update(frame, detections)
        for counter in (self._unique, *self._lines, *self._zones):
            counter.update(tracks)
        self._frames = number + 1
        self._mot.add(number, tracks)
        if self._json:
            self._json.add(number, tracks)
        self._count_log.add(self.counts)
        return TrackedFrame(
            tracks,
            self._trails.after(tracks) if self._trails else (),
            tuple(LineView((line.start, line.end), Counter(line.entered), Counter(line.left)) for line in self._lines),
            tuple(ZoneView(z.corners, Counter(z.inside), Counter(z.entered), Counter(z.left)) for z in self._zones),
        )

    def draw(self, frame: np.ndarray, tracked: TrackedFrame) -> np.ndarray:
        """What `follow` gave of this frame, on a copy of it."""
        return draw_tracked(frame, tracked, self._class_names, show_labels=self._show_labels)

    def counts(self) -> dict[str, Any]:
        """What NAME_counts.json has."""
        return {
            "frames": self._frames,
            "objects": self._named(self._unique.seen),
            "lines": [
                {"points": [line.start, line.end], "in": self._named(line.entered), "out": self._named(line.left)}
                for line in self._lines
            ],
            "zones": [
                {
                    "points": zone.corners,
                    "in": self._named(zone.entered),
                    "out": self._named(zone.left),
                    "inside": self._named(zone.inside),
                    "objects": self._named(zone.seen),
                }
                for zone in self._zones
            ],
        }

    def close(self) -> None:
        """Complete the files, also of a run that was interrupted."""
        with ExitStack() as files:  # each is closed, whatever becomes of the others
            files.callback(self._count_log.add, self.counts, last=True)
            if self._json:
                files.callback(self._json.close)
            files.callback(self._mot.close)
        log.info("Tracked: %s", _words(self._named(self._unique.seen)) or "nothing")
        for line in self._lines:
            entered, left = _words(self._named(line.entered)), _words(self._named(line.left))
            log.info("Line %s: in %s; out %s", _shown(line.start, line.end), entered or "none", left or "none")
        for zone in self._zones:
            entered, left = _words(self._named(zone.entered)), _words(self._named(zone.left))
            log.info("Zone %s: in %s; out %s", _shown(*zone.corners), entered or "none", left or "none")

    def _named(self, counts: Counter[int]) -> dict[str, int]:
        return {self._class_names[label]: counts[label] for label in sorted(counts) if counts[label]}


def open_track_annotator(
    options: TrackingOptions, class_names: Sequence[str], path: Path, *, width: int, height: int, fps: float,
    threshold: float | np.ndarray, device: str = "cpu", show_labels: bool = True, log_json: bool = False,
) -> TrackAnnotator:  # fmt: skip
    """A TrackAnnotator, which see, with the tracker that the options name.

    Args:
        threshold: --threshold: the score that starts a track, or (K,) scores by label.
        device: cpu, cuda or cuda:N, for DeepSORT's network.

    Raises:
        UserError: see create_tracker and TrackAnnotator.
    """
    tracker = create_tracker(options.tracker, threshold=threshold, fps=fps, buffer=options.track_buffer, device=device)
    return TrackAnnotator(
        tracker, class_names, options, path,
        width=width, height=height, fps=fps, show_labels=show_labels, log_json=log_json,
    )  # fmt: skip


class _Trails:
    """Where the feet of tracks were in the latest frames."""

    def __init__(self, length: int, patience: int) -> None:
        self._frame = 0
        self._length = length  # frames
        self._patience = max(length, patience)
        self._points: dict[int, deque[tuple[int, float, float]]] = {}  # id -> frame, x, y

    def after(self, tracks: Tracks) -> tuple[np.ndarray, ...]:
        """(P, 2) x, y of each of the tracks of the next frame, oldest first, of up to `length` frames."""
        self._frame += 1
        trails = []
        for number, (x, y) in zip(tracks.ids.tolist(), tracks.feet().tolist(), strict=True):
            points = self._points.setdefault(number, deque(maxlen=self._length))
            points.append((self._frame, x, y))
            while points[0][0] <= self._frame - self._length:
                points.popleft()
            trails.append(np.array(points)[:, 1:])
        for number in [n for n, points in self._points.items() if points[-1][0] < self._frame - self._patience]:
            del self._points[number]
        return tuple(trails)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _shown(*points: tuple[float, float]) -> str:
    return ",".join(f"{value:g}" for point in points for value in point)
