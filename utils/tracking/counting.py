"""Counting of tracks that cross a line or enter a zone.

The position of a track is the bottom center of its box. It changes sides only at a distance from the line of a tenth
of its box's shorter side, so that a box that jitters on a line is counted once.
"""

from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np

from utils.cli.regions import Points
from utils.tracking.tracks import Tracks

_MARGIN = 0.1  # of a box's shorter side


@dataclass
class LineCounter:
    """Counts tracks that cross a line from its left to its right (in), and back (out).

    Left and right are seen in the direction from `start` to `end`: above a line from left to right is its left.
    """

    start: tuple[float, float]  # x, y in px
    end: tuple[float, float]
    entered: Counter[int] = field(default_factory=Counter)  # label -> crossings in
    left: Counter[int] = field(default_factory=Counter)  # label -> crossings out
    _known: dict[int, "_Passage"] = field(default_factory=dict)  # by track id

    def update(self, tracks: Tracks) -> None:
        """Count the tracks of the next frame."""
        start, along = np.array(self.start), np.subtract(self.end, self.start)
        length = float(np.hypot(*along))
        offset = tracks.bottom_centers().astype(np.float64) - start
        distances = (along[0] * offset[:, 1] - along[1] * offset[:, 0]) / length  # px, above 0 on the right
        positions = offset @ along / length**2  # 0 at start, 1 at end
        columns = (tracks.ids, tracks.labels, distances, positions, _margins(tracks))
        for track_id, label, distance, position, margin in zip(*(column.tolist() for column in columns), strict=True):
            passage = self._known.setdefault(track_id, _Passage(distance, position))
            change = passage.move(distance, position, margin)
            if change > 0:
                self.entered[label] += 1
            elif change < 0:
                self.left[label] += 1


@dataclass
class _Passage:
    """Position of a track relative to a line."""

    distance: float  # px, in the last frame with the track
    position: float  # along the line, 0 at its start, 1 at its end
    side: int = 0  # last side beyond the margin, -1 or 1; 0: none yet
    crossed_at: float = 0.0  # position where it last crossed the line or its extension

    def move(self, distance: float, position: float, margin: float) -> int:
        """Move to the position in the next frame; return the side, 1 or -1, crossed to between the ends, or 0."""
        if (self.distance > 0) != (distance > 0):
            share = self.distance / (self.distance - distance)
            self.crossed_at = self.position + share * (position - self.position)
        self.distance, self.position = distance, position
        if abs(distance) <= margin:
            return 0
        before, self.side = self.side, 1 if distance > 0 else -1
        return self.side if before == -self.side and 0 <= self.crossed_at <= 1 else 0


@dataclass
class ZoneCounter:
    """Counts tracks that enter and leave a polygon. A track that starts inside has not entered."""

    corners: Points  # px
    entered: Counter[int] = field(default_factory=Counter)  # label -> entries
    left: Counter[int] = field(default_factory=Counter)  # label -> exits
    inside: Counter[int] = field(default_factory=Counter)  # label -> tracks inside in this frame
    seen: Counter[int] = field(default_factory=Counter)  # label -> distinct tracks ever inside
    _is_inside: dict[int, bool] = field(default_factory=dict)  # by track id
    _were_inside: set[int] = field(default_factory=set)

    def update(self, tracks: Tracks) -> None:
        """Count the tracks of the next frame."""
        polygon = np.array(self.corners, np.float32)
        self.inside = Counter()
        columns = (tracks.ids, tracks.labels, tracks.bottom_centers(), _margins(tracks))
        for track_id, label, point, margin in zip(*(column.tolist() for column in columns), strict=True):
            depth = cv2.pointPolygonTest(polygon, point, True)  # px from the border, negative outside
            before = self._is_inside.get(track_id)
            inside = depth >= 0 if before is None or abs(depth) > margin else before
            if before is not None and inside != before:
                (self.entered if inside else self.left)[label] += 1
            self._is_inside[track_id] = inside
            if inside:
                self.inside[label] += 1
                if track_id not in self._were_inside:
                    self._were_inside.add(track_id)
                    self.seen[label] += 1


@dataclass
class UniqueCounter:
    """Counts distinct objects by class."""

    seen: Counter[int] = field(default_factory=Counter)  # by label
    _last_id: int = 0

    def update(self, tracks: Tracks) -> None:
        """Count the new tracks of the next frame. New ids are higher than all previous ones."""
        new = tracks.ids > self._last_id
        self.seen.update(tracks.labels[new].tolist())
        self._last_id = max(self._last_id, *tracks.ids.tolist()) if len(tracks) else self._last_id


def _margins(tracks: Tracks) -> np.ndarray:
    """Compute (N,) px, the distance from a line beyond which each track has changed sides."""
    return _MARGIN * (tracks.boxes[:, 2:] - tracks.boxes[:, :2]).min(1)
