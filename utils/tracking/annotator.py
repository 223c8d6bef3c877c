"""Tracking, counting, logging and drawing of one video."""

import logging
import math
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from utils.cli.options import TrackingOptions
from utils.cli.regions import to_pixels
from utils.detect.detections import Detections
from utils.tracking.counting import LineCounter, UniqueCounter, ZoneCounter
from utils.tracking.drawing import LineView, TrackedFrame, ZoneView, draw_tracked
from utils.tracking.logs import CountLog, MotLog, TrackLog
from utils.tracking.tracker import Tracker, create_tracker
from utils.tracking.tracks import Tracks

_TRAIL = 1.5  # s, length of the drawn trails
log = logging.getLogger(__name__)


class TrackAnnotator:
    """Tracks, counts, logs and draws the objects of one video.

    Call `track` on every frame, in order. `draw` may run in another thread, on other frames. `annotate` does both.
    Pass the detections of the classes to track with scores of at least `lowest_score`.

    Args:
        tracker: a new tracker.
        class_names: class_names[0] is the background.
        options: buffer, lines, zones and trails.
        path: folder and name of the video; the files are NAME_tracks.txt and NAME_counts.json.
        width, height: frame size in px.
        fps: frames per second.
        show_labels: draw class name and id at each box.
        log_json: write NAME_tracks.json too.

    Raises:
        UserError: a line or zone is outside the frame.
    """

    def __init__(
        self, tracker: Tracker, class_names: Sequence[str], options: TrackingOptions, path: Path, *,
        width: int, height: int, fps: float, show_labels: bool = True, log_json: bool = False,
    ) -> None:  # fmt: skip
        self.lowest_score = tracker.lowest_score
        self._tracker = tracker
        self._class_names = class_names
        self._show_labels = show_labels
        lines = [to_pixels(ends, width, height, "--count-line") for ends in options.count_line or ()]
        zones = [to_pixels(corners, width, height, "--count-zone") for corners in options.count_zone or ()]
        self._lines = [LineCounter(*ends) for ends in lines]
        self._zones = [ZoneCounter(corners) for corners in zones]
        self._unique = UniqueCounter()
        self._frames = 0
        patience = math.ceil(options.track_buffer * fps) + 1  # frames without a detection after which a track has ended
        self._trails = None if options.no_trails else _Trails(math.ceil(_TRAIL * fps), patience)
        self._mot = MotLog(path.with_name(f"{path.name}_tracks.txt"))
        self._json = TrackLog(path.with_name(f"{path.name}_tracks.json"), class_names, patience) if log_json else None
        self._count_log = CountLog(path.with_name(f"{path.name}_counts.json"))

    def annotate(self, number: int, frame: np.ndarray, detections: Detections) -> np.ndarray:
        """Track and draw the next frame; return a new picture. `number` counts from 0."""
        return self.draw(frame, self.track(number, frame, detections))

    def track(self, number: int, frame: np.ndarray, detections: Detections) -> TrackedFrame:
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
            self._trails.update(tracks) if self._trails else (),
            tuple(LineView((line.start, line.end), Counter(line.entered), Counter(line.left)) for line in self._lines),
            tuple(ZoneView(z.corners, Counter(z.inside), Counter(z.entered), Counter(z.left)) for z in self._zones),
        )

    def draw(self, frame: np.ndarray, tracked: TrackedFrame) -> np.ndarray:
        """Draw the result of `track` on a copy of its frame."""
        return draw_tracked(frame, tracked, self._class_names, show_labels=self._show_labels)

    def counts(self) -> dict[str, Any]:
        """Return the content of NAME_counts.json."""
        return {
            "frames": self._frames,
            "objects": self._by_name(self._unique.seen),
            "lines": [
                {"points": [line.start, line.end], "in": self._by_name(line.entered), "out": self._by_name(line.left)}
                for line in self._lines
            ],
            "zones": [
                {
                    "points": zone.corners,
                    "in": self._by_name(zone.entered),
                    "out": self._by_name(zone.left),
                    "inside": self._by_name(zone.inside),
                    "objects": self._by_name(zone.seen),
                }
                for zone in self._zones
            ],
        }

    def close(self) -> None:
        """Complete the files, also after an interruption."""
        with ExitStack() as files:  # all are closed, even if one fails
            files.callback(self._count_log.add, self.counts, last=True)
            if self._json:
                files.callback(self._json.close)
            files.callback(self._mot.close)
        log.info("Tracked: %s", _counts_text(self._by_name(self._unique.seen)) or "nothing")
        for line in self._lines:
            entered, left = _counts_text(self._by_name(line.entered)), _counts_text(self._by_name(line.left))
            log.info("Line %s: in %s; out %s", _coordinates(line.start, line.end), entered or "none", left or "none")
        for zone in self._zones:
            entered, left = _counts_text(self._by_name(zone.entered)), _counts_text(self._by_name(zone.left))
            log.info("Zone %s: in %s; out %s", _coordinates(*zone.corners), entered or "none", left or "none")

    def _by_name(self, counts: Counter[int]) -> dict[str, int]:
        return {self._class_names[label]: counts[label] for label in sorted(counts) if counts[label]}


def open_track_annotator(
    options: TrackingOptions, class_names: Sequence[str], path: Path, *, width: int, height: int, fps: float,
    threshold: float | np.ndarray, device: str = "cpu", show_labels: bool = True, log_json: bool = False,
) -> TrackAnnotator:  # fmt: skip
    """Create a TrackAnnotator with the tracker named in the options; see TrackAnnotator.

    Args:
        threshold: score that starts a track, or (K,) scores by label.
        device: cpu, cuda or cuda:N, for the appearance network of DeepSORT.

    Raises:
        UserError: see create_tracker and TrackAnnotator.
    """
    tracker = create_tracker(options.tracker, threshold=threshold, fps=fps, buffer=options.track_buffer, device=device)
    return TrackAnnotator(
        tracker, class_names, options, path,
        width=width, height=height, fps=fps, show_labels=show_labels, log_json=log_json,
    )  # fmt: skip


class _Trails:
    """Trails: bottom centers of the tracks in recent frames."""

    def __init__(self, length: int, patience: int) -> None:
        self._frame = 0
        self._length = length  # frames
        self._patience = max(length, patience)
        self._points: dict[int, deque[tuple[int, float, float]]] = {}  # id -> frame, x, y

    def update(self, tracks: Tracks) -> tuple[np.ndarray, ...]:
        """Add a frame; return (P, 2) x, y px of each of its tracks, oldest first, of up to `length` frames."""
        self._frame += 1
        trails = []
        for number, (x, y) in zip(tracks.ids.tolist(), tracks.bottom_centers().tolist(), strict=True):
            points = self._points.setdefault(number, deque(maxlen=self._length))
            points.append((self._frame, x, y))
            while points[0][0] <= self._frame - self._length:
                points.popleft()
            trails.append(np.array(points)[:, 1:])
        for number in [n for n, points in self._points.items() if points[-1][0] < self._frame - self._patience]:
            del self._points[number]
        return tuple(trails)


def _counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _coordinates(*points: tuple[float, float]) -> str:
    return ",".join(f"{value:g}" for point in points for value in point)
