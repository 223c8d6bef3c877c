"""Who crosses a line, and who enters a zone.

A track is where its feet are, the middle of its box's lower edge. It has changed sides only when it is clear of the
line by a tenth of its box's shorter side, so that boxes that tremble on a line count once.
"""

from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np

from utils.cli.points import Points
from utils.tracking.tracks import Tracks

_CLEAR = 0.1  # of a box's shorter side


@dataclass
class LineCounter:
    """Counts the tracks that cross from `start` to `end`'s left to its right (in), and back (out).

    Left and right are those of one who walks from start to end: of a line from left to right, above is left.
    """

    start: tuple[float, float]  # x, y in px
    end: tuple[float, float]
    entered: Counter[int] = field(default_factory=Counter)  # label -> crossings in
    left: Counter[int] = field(default_factory=Counter)  # label -> crossings out
    _known: dict[int, "_Passage"] = field(default_factory=dict)  # by id

    def update(self, tracks: Tracks) -> None:
        """Count one frame."""
        start, along = np.array(self.start), np.subtract(self.end, self.start)
        length = float(np.hypot(*along))
        offset = tracks.feet().astype(np.float64) - start
        distances = (along[0] * offset[:, 1] - along[1] * offset[:, 0]) / length  # px, above 0 on the right
        places = offset @ along / length**2  # 0 at start, 1 at end
        columns = (tracks.ids, tracks.labels, distances, places, _margins(tracks))
        for number, label, distance, place, margin in zip(*(column.tolist() for column in columns), strict=True):
            passage = self._known.setdefault(number, _Passage(distance, place))
            change = passage.move(distance, place, margin)
            if change > 0:
                self.entered[label] += 1
            elif change < 0:
                self.left[label] += 1


@dataclass
class _Passage:
    """Where a track is with respect to a line."""

    distance: float  # px, in the frame in which it was last seen
    place: float  # along the line, 0 at its start, 1 at its end
    side: int = 0  # the side that it was last clear on, -1 or 1
    crossed_at: float = 0.0  # place of its latest step over the line or what continues it

    def move(self, distance: float, place: float, margin: float) -> int:
        """One frame on; 1 or -1 when it has now crossed to this side between the line's ends, else 0."""
        if (self.distance > 0) != (distance > 0):
            share = self.distance / (self.distance - distance)
            self.crossed_at = self.place + share * (place - self.place)
        self.distance, self.place = distance, place
        if abs(distance) <= margin:
            return 0
        before, self.side = self.side, 1 if distance > 0 else -1
        return self.side if before == -self.side and 0 <= self.crossed_at <= 1 else 0


@dataclass
class ZoneCounter:
    """Counts the tracks that enter and leave a polygon; who is inside when first seen has not entered."""

    corners: Points  # px
    entered: Counter[int] = field(default_factory=Counter)  # label -> how often one came in
    left: Counter[int] = field(default_factory=Counter)  # label -> how often one went out
    inside: Counter[int] = field(default_factory=Counter)  # label -> how many are in it in this frame
    seen: Counter[int] = field(default_factory=Counter)  # label -> how many different ones were ever in it
    _is_inside: dict[int, bool] = field(default_factory=dict)  # by id
    _were_inside: set[int] = field(default_factory=set)

    def update(self, tracks: Tracks) -> None:
        """Count one frame."""
        polygon = np.array(self.corners, np.float32)
        self.inside = Counter()
        columns = (tracks.ids, tracks.labels, tracks.feet(), _margins(tracks))
        for number, label, feet, margin in zip(*(column.tolist() for column in columns), strict=True):
            depth = cv2.pointPolygonTest(polygon, feet, True)  # px from the border, below 0 outside
            before = self._is_inside.get(number)
            inside = depth >= 0 if before is None or abs(depth) > margin else before
            if before is not None and inside != before:
                (self.entered if inside else self.left)[label] += 1
            self._is_inside[number] = inside
            if inside:
                self.inside[label] += 1
                if number not in self._were_inside:
                    self._were_inside.add(number)
                    self.seen[label] += 1


@dataclass
class UniqueCounter:
    """How many different objects of each class there were."""

    seen: Counter[int] = field(default_factory=Counter)  # by label
    _last_id: int = 0

    def update(self, tracks: Tracks) -> None:
        """Count one frame; new ids are above the old ones."""
        new = tracks.ids > self._last_id
        self.seen.update(tracks.labels[new].tolist())
        self._last_id = max(self._last_id, *tracks.ids.tolist()) if len(tracks) else self._last_id


def _margins(tracks: Tracks) -> np.ndarray:
    """(N,) px by which each track must be clear of a line."""
    return _CLEAR * (tracks.boxes[:, 2:] - tracks.boxes[:, :2]).min(1)
