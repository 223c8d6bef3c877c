"""Drawing of tracks, trails, lines and zones on uint8 RGB frames.

The color of a track encodes its id; its label shows class and id. A trail joins the bottom centers of its boxes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from utils.cli.regions import Points
from utils.tracking.tracks import Tracks
from utils.visualize.drawing import class_color, line_sizes, rectangle, tag

Color = tuple[int, int, int]
_LINE_COLOR: Color = (255, 196, 0)
_ZONE_COLOR: Color = (0, 190, 255)
_ZONE_OPACITY = 0.15
_NEIGHBORS = 3  # trail points on either side in the moving average
_MAX_ROWS = 6  # classes listed at a line or zone


@dataclass(frozen=True)
class LineView:
    """A line and its counts so far."""

    points: Points  # start and end, px
    entered: Counter[int]  # label -> crossings from left to right, seen from start to end
    left: Counter[int]


@dataclass(frozen=True)
class ZoneView:
    """A zone and its counts so far."""

    corners: Points  # px
    inside: Counter[int]  # by label
    entered: Counter[int]
    left: Counter[int]


@dataclass(frozen=True)
class TrackedFrame:
    """Everything drawn on one frame. Immutable, so that another thread can draw it."""

    tracks: Tracks
    trails: tuple[np.ndarray, ...] = ()  # (P, 2) px of each track, oldest first; () for none
    lines: tuple[LineView, ...] = ()
    zones: tuple[ZoneView, ...] = ()


def draw_tracked(
    frame: np.ndarray, tracked: TrackedFrame, class_names: Sequence[str], *, show_labels: bool = True
) -> np.ndarray:
    """Draw zones, lines, counts, trails, boxes and, with `show_labels`, names and ids on a copy of `frame`."""
    canvas = frame.copy()
    thickness, text_size = line_sizes(canvas)
    for zone in tracked.zones:
        _draw_zone(canvas, zone, thickness)
    for line in tracked.lines:
        _draw_line(canvas, line, thickness)
    tracks = tracked.tracks
    colors = [class_color(track_id) for track_id in tracks.ids.tolist()]
    if tracked.trails:
        for trail, color in zip(tracked.trails, colors, strict=True):
            _draw_trail(canvas, trail, color, thickness)
    for box, color in zip(tracks.boxes, colors, strict=True):
        rectangle(canvas, box, color, thickness)
    if show_labels:
        for box, track_id, label, color in zip(tracks.boxes, tracks.ids, tracks.labels, colors, strict=True):
            tag(canvas, box, f"{_name(class_names, label)} #{track_id}", color, text_size)
    for zone in tracked.zones:
        counts = {"inside": zone.inside, "in": zone.entered, "out": zone.left}
        _write_counts(canvas, zone.corners[0], counts, class_names, _ZONE_COLOR, text_size)
    for line in tracked.lines:
        counts = {"in": line.entered, "out": line.left}
        _write_counts(canvas, line.points[0], counts, class_names, _LINE_COLOR, text_size)
    return canvas


def _draw_zone(canvas: np.ndarray, zone: ZoneView, thickness: int) -> None:
    corners = np.round(zone.corners).astype(np.int32)
    x, y, width, height = cv2.boundingRect(corners)
    left, top = max(x, 0), max(y, 0)
    part = canvas[top : y + height, left : x + width]
    filled = cv2.fillPoly(part.copy(), [corners - (left, top)], _ZONE_COLOR)
    cv2.addWeighted(filled, _ZONE_OPACITY, part, 1 - _ZONE_OPACITY, 0, dst=part)
    cv2.polylines(canvas, [corners], True, _ZONE_COLOR, thickness, cv2.LINE_AA)


def _draw_line(canvas: np.ndarray, line: LineView, thickness: int) -> None:
    """Draw the line, with an arrow in the direction counted as in."""
    start, end = np.array(line.points)
    middle, along = (start + end) / 2, (end - start) / np.hypot(*(end - start))
    tip = middle + np.array([-along[1], along[0]]) * max(canvas.shape[:2]) / 25
    cv2.line(canvas, _pixel(start), _pixel(end), _LINE_COLOR, thickness + 1, cv2.LINE_AA)
    cv2.arrowedLine(canvas, _pixel(middle), _pixel(tip), _LINE_COLOR, thickness + 1, cv2.LINE_AA, tipLength=0.4)
    for point in (start, end):
        cv2.circle(canvas, _pixel(point), 2 * thickness + 2, _LINE_COLOR, -1, cv2.LINE_AA)


def _draw_trail(canvas: np.ndarray, trail: np.ndarray, color: Color, thickness: int) -> None:
    """Draw a line that fades towards the oldest point."""
    height, width = canvas.shape[:2]
    points = np.round(_smooth(trail)).astype(int)
    left, top = np.clip(points.min(0) - thickness, 0, (width, height)).tolist()
    right, bottom = np.clip(points.max(0) + thickness + 1, 0, (width, height)).tolist()
    part = canvas[top:bottom, left:right]
    if not part.size:
        return
    strength = np.zeros(part.shape[:2], np.uint8)
    for index, ends in enumerate(pairwise((points - (left, top)).tolist()), 1):
        cv2.line(strength, *ends, round(255 * index / len(points)), thickness, cv2.LINE_AA)
    marked = strength > 0
    share = strength[marked].astype(np.float32)[:, None] / 255
    part[marked] = (part[marked] * (1 - share) + np.array(color) * share).astype(np.uint8)


def _smooth(trail: np.ndarray) -> np.ndarray:
    """Smooth the jitter of a (P, 2) trail by a moving average."""
    padded = np.pad(trail, ((_NEIGHBORS, _NEIGHBORS), (0, 0)), mode="edge")
    return np.mean([padded[i : i + len(trail)] for i in range(2 * _NEIGHBORS + 1)], 0)


def _write_counts(
    canvas: np.ndarray, at: tuple[float, float], counts: Mapping[str, Counter[int]], class_names: Sequence[str],
    color: Color, text_size: int,
) -> None:  # fmt: skip
    """Write a row of counts for each class, below and to the right of a point."""
    labels = sorted(set().union(*counts.values()))
    texts = [
        f"{_name(class_names, label)}: " + "  ".join(f"{name} {count[label]}" for name, count in counts.items())
        for label in labels[:_MAX_ROWS]
    ]
    if len(labels) > _MAX_ROWS:
        texts.append(f"and {len(labels) - _MAX_ROWS} more classes")
    x, y = at[0] + text_size / 2, at[1] + text_size / 2
    y = max(min(y, canvas.shape[0] - 2 * text_size * len(texts)), 2 * text_size)  # tag() would move cut-off text
    for text in texts or ["  ".join(f"{name} 0" for name in counts)]:
        y += tag(canvas, np.array([x, y]), text, color, text_size)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else str(label)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    x, y = np.round(point).astype(int).tolist()
    return x, y
