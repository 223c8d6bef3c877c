from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.tracking.counting import LineCounter, UniqueCounter, ZoneCounter
from utils.tracking.tracks import Tracks

SIDE = 20.0  # px of a box, so that 2 px are clear of a line
Point = tuple[float, float]


def standing(*feet: Point, ids: Sequence[int] | None = None, labels: Sequence[int] | None = None) -> Tracks:
    """Boxes whose feet are there."""
    points = np.array(feet, np.float32).reshape(-1, 2)
    boxes = np.tile(points, 2) + np.array([-SIDE / 2, -SIDE, SIDE / 2, 0])
    n = len(points)
    return Tracks(
        boxes.astype(np.float32), np.array(ids or range(1, n + 1), np.int64).reshape(n),
        np.array(labels or [1] * n, np.int64), np.ones(n, np.float32),
    )  # fmt: skip


def crossings(path: Sequence[Point], start: Point = (0, 100), end: Point = (200, 100)) -> tuple[int, int]:
    counter = LineCounter(start, end)
    for point in path:
        counter.update(standing(point))
    return counter.entered[1], counter.left[1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(50, 80), (50, 95), (50, 110)], (1, 0)),  # downwards, of a line from left to right
        ([(50, 120), (50, 90)], (0, 1)),
        ([(50, 80), (50, 120), (50, 80), (50, 120)], (2, 1)),
        ([(50, 80), (50, 99)], (0, 0)),  # not over it
        ([(50, 80), (50, 101.5)], (0, 0)),  # over it, not clear of it
        ([(50, 80), (50, 101.5), (50, 103)], (1, 0)),
        ([(50, 80), (50, 100), (50, 100), (50, 120)], (1, 0)),  # on it
        ([(250, 80), (250, 120)], (0, 0)),  # beyond its end
        ([(250, 80), (250, 101), (150, 101), (150, 120)], (0, 0)),  # over what continues it, then along it
        ([(150, 80), (150, 101), (250, 101), (250, 120)], (1, 0)),
        ([(50, 100)], (0, 0)),
        ([(50, 101), (50, 120), (50, 80)], (0, 1)),  # first seen on it
    ],
)
def test_a_track_is_counted_once_for_each_time_it_crosses(path: list[Point], expected: tuple[int, int]) -> None:
    assert crossings(path) == expected
    turned = expected[::-1]
    assert crossings(path, (200, 100), (0, 100)) == turned
    flipped = [(y, x) for x, y in path]  # seen in a mirror, left is right
    assert crossings(flipped, (100, 0), (100, 200)) == turned


def test_a_track_that_was_lost_on_the_way_is_counted() -> None:
    counter = LineCounter((0, 100), (200, 100))
    for tracks in (standing((50, 80)), standing(), standing(), standing((60, 130))):
        counter.update(tracks)
    assert counter.entered == {1: 1}


def test_classes_and_tracks_are_counted_apart() -> None:
    counter = LineCounter((0, 100), (200, 100))
    counter.update(standing((20, 80), (60, 80), (100, 120), ids=(4, 9, 5), labels=(1, 2, 2)))
    counter.update(standing((100, 80), (60, 120), (20, 120), ids=(5, 9, 4), labels=(2, 2, 1)))
    assert counter.entered == {1: 1, 2: 1}
    assert counter.left == {2: 1}


coordinate = st.floats(-300, 300, allow_nan=False, width=16)
points = st.tuples(coordinate, coordinate)
paths = st.lists(points, min_size=1, max_size=30)


@given(paths, st.data())
def test_trembling_by_less_than_the_margin_does_not_count(path: list[Point], data: st.DataObject) -> None:
    y = data.draw(st.floats(98.5, 101.5))
    tremble = [
        (x, y + dy) for (x, _), dy in zip(path, data.draw(st.lists(st.floats(-0.4, 0.4), min_size=30)), strict=False)
    ]
    assert crossings(tremble) == (0, 0)


@given(paths)
def test_on_an_endless_line_directions_alternate(path: list[Point]) -> None:
    entered, left = crossings(path, (-10_000, 0), (10_000, 0))
    assert abs(entered - left) <= 1


@given(paths)
def test_the_way_back_is_the_way_there_turned(path: list[Point]) -> None:
    """On a path that is always clear of the line, as many cross back as crossed."""
    clear = [(x, 100 + (y if abs(y) > 3 else 3)) for x, y in path]
    assert (
        crossings(clear, (-10_000, 100), (10_000, 100)) == crossings(clear[::-1], (-10_000, 100), (10_000, 100))[::-1]
    )


@given(paths, points, points)
def test_crossings_are_those_of_the_segments(path: list[Point], start: Point, end: Point) -> None:
    """Counts equal the intersections of the path's steps with the line if every point is beyond the margin."""
    if np.hypot(*np.subtract(end, start)) < 1:
        return
    along = np.subtract(end, start) / np.hypot(*np.subtract(end, start))

    def distance(point: Point) -> float:
        offset = np.subtract(point, start)
        return float(along[0] * offset[1] - along[1] * offset[0])

    path = [point for point in path if abs(distance(point)) > 0.1 * SIDE + 0.1]
    entered = left = 0
    for one, other in pairwise(path):
        before, after = distance(one), distance(other)
        if (before > 0) != (after > 0):
            meeting = np.array(one) + before / (before - after) * np.subtract(other, one)
            place = float((meeting - start) @ along) / np.hypot(*np.subtract(end, start))
            if min(abs(place), abs(place - 1)) < 1e-3:
                return  # through an end, as far as float32 can tell
            if 0 < place < 1:
                entered, left = (entered + 1, left) if after > 0 else (entered, left + 1)
    assert crossings(path, start, end) == (entered, left)


SQUARE = ((0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (0.0, 100.0))


def in_zone(path: Sequence[Point]) -> ZoneCounter:
    zone = ZoneCounter(SQUARE)
    for point in path:
        zone.update(standing(point))
    return zone


@pytest.mark.parametrize(
    ("path", "entered", "left", "inside", "seen"),
    [
        ([(150, 50), (50, 50)], 1, 0, 1, 1),
        ([(50, 50), (150, 50)], 0, 1, 0, 1),
        ([(50, 50)], 0, 0, 1, 1),
        ([(150, 50)], 0, 0, 0, 0),
        ([(150, 50), (99, 50)], 0, 0, 0, 0),  # not clear of the border
        ([(150, 50), (99, 50), (97, 50), (101, 50)], 1, 0, 1, 1),
        ([(150, 50), (50, 50), (150, 50), (50, 50)], 2, 1, 1, 1),
        ([(-50, 50), (150, 50)], 0, 0, 0, 0),  # through it between two frames
    ],
)
def test_zones(path: list[Point], entered: int, left: int, inside: int, seen: int) -> None:
    zone = in_zone(path)
    assert (zone.entered[1], zone.left[1], zone.inside[1], zone.seen[1]) == (entered, left, inside, seen)


def test_who_is_not_seen_is_not_inside() -> None:
    zone = ZoneCounter(SQUARE)
    zone.update(standing((50, 50), (20, 20), labels=(1, 2)))
    assert zone.inside == {1: 1, 2: 1}
    zone.update(standing((20, 20), ids=(2,), labels=(2,)))
    assert zone.inside == {2: 1}
    assert zone.left == {}
    zone.update(standing())
    assert zone.inside == {}
    assert zone.seen == {1: 1, 2: 1}


@given(paths)
def test_a_zone_is_entered_before_it_is_left(path: list[Point]) -> None:
    zone = in_zone(path)
    first_inside = in_zone(path[:1]).inside[1]
    assert first_inside + zone.entered[1] - zone.left[1] == zone.inside[1]
    assert zone.seen[1] == (1 if first_inside or zone.entered[1] else 0)


@given(st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), max_size=20))
def test_unique_objects_are_counted_once(frames: list[list[int]]) -> None:
    """Ids as trackers give them: in the order in which they are first told."""
    number: dict[int, int] = {}
    counter, expected = UniqueCounter(), Counter()
    for frame in frames:
        for key in frame:
            if key not in number:
                number[key] = len(number) + 1
                expected[1 + key % 2] += 1
        ids = [number[key] for key in frame]
        counter.update(standing(*[(50, 50)] * len(ids), ids=ids, labels=[1 + key % 2 for key in frame]))
    assert counter.seen == expected
