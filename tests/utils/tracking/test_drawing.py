from collections import Counter

import numpy as np
import pytest

from tests.support.tracks import tracks
from utils.tracking.drawing import LineView, TrackedFrame, ZoneView, draw_tracked
from utils.tracking.tracks import Tracks
from utils.visualize.drawing import class_color

FRAME = np.full((200, 300, 3), 90, np.uint8)
NAMES = ("__background__", "person", "car")
NONE: Counter[int] = Counter()


def draw(tracked: TrackedFrame, frame: np.ndarray = FRAME, **options: bool) -> np.ndarray:
    before = frame.copy()
    drawn = draw_tracked(frame, tracked, NAMES, **options)
    np.testing.assert_array_equal(frame, before)  # left alone
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    return drawn


def changed(drawn: np.ndarray, frame: np.ndarray = FRAME) -> list[list[int]]:
    """First and last row and column that differ."""
    places = np.argwhere((drawn != frame).any(2))
    return [places.min(0).tolist(), places.max(0).tolist()]


def test_nothing_to_draw() -> None:
    np.testing.assert_array_equal(draw(TrackedFrame(Tracks.none())), FRAME)


def test_a_box_is_where_it_is_in_original_pixels_in_the_color_of_its_id() -> None:
    """Fault of the predecessor: boxes of tracks were drawn on the resized frame."""
    drawn = draw(TrackedFrame(tracks((5, 1, 20, 30, 60, 70))), show_labels=False)
    assert changed(drawn) == [[30, 20], [69, 59]]
    assert tuple(drawn[30, 40]) == class_color(5)


def test_ids_of_one_class_have_colors_of_their_own_that_stay() -> None:
    one = draw(TrackedFrame(tracks((5, 1, 20, 30, 60, 70), (6, 1, 100, 30, 140, 70))), show_labels=False)
    other = draw(TrackedFrame(tracks((6, 1, 20, 30, 60, 70))), show_labels=False)
    assert tuple(one[30, 40]) != tuple(one[30, 120])
    assert tuple(one[30, 120]) == tuple(other[30, 40])


def test_names_and_ids_are_written_unless_switched_off() -> None:
    bare = draw(TrackedFrame(tracks((5, 1, 20, 30, 60, 70))), show_labels=False)
    five, six = (draw(TrackedFrame(tracks((number, 1, 20, 30, 60, 70)))) for number in (5, 11))
    assert (five[:30] != bare[:30]).any()
    assert (five[:30] != six[:30]).any()


def test_trails_fade() -> None:
    trail = np.stack([np.linspace(20, 200, 40), np.full(40, 150)], 1)
    boxes = tracks((5, 1, 180, 110, 220, 150))
    drawn = draw(TrackedFrame(boxes, (trail,)), show_labels=False)
    strength = np.abs(drawn[150, 30:175].astype(int) - 90).sum(1)
    assert strength[:20].mean() < strength[60:80].mean() < strength[-20:].mean()
    assert (strength > 0).all()


def test_trails_do_not_tremble() -> None:
    y = 150 + 3 * (-1.0) ** np.arange(40)
    drawn = draw(
        TrackedFrame(tracks((5, 1, 0, 0, 9, 9)), (np.stack([np.linspace(20, 200, 40), y], 1),)), show_labels=False
    )
    rows = np.argwhere((drawn[60:] != FRAME[60:]).any(2))[:, 0] + 60
    assert rows.max() - rows.min() <= 5


@pytest.mark.parametrize(
    "trail", [[(-50, -50)], [(-50, 10), (-40, 20)], [(290, 190), (400, 300)], [(5, 5)], [(-900, 9), (900, 9)]]
)
def test_trails_outside_the_frame_are_no_fault(trail: list) -> None:
    draw(TrackedFrame(tracks((1, 1, -60, -60, -50, -50)), (np.array(trail, np.float64),)))


@pytest.mark.parametrize(
    "points", [((150, 10), (150, 190)), ((-50, 100), (400, 120)), ((0, 199), (299, 199)), ((298, 0), (299, 199))]
)
def test_lines_and_their_counts_stay_in_the_picture(points: tuple) -> None:
    few = draw(TrackedFrame(Tracks.none(), lines=(LineView(points, NONE, NONE),)))
    more = draw(TrackedFrame(Tracks.none(), lines=(LineView(points, Counter({1: 3}), Counter({2: 1})),)))
    assert (few != FRAME).any()
    assert (more != few).any()


@pytest.mark.parametrize("top", [0, -30, 9])
def test_rows_of_counts_at_the_upper_edge_do_not_cover_each_other(top: int) -> None:
    points = (150, top), (150, 199)
    both = draw(TrackedFrame(Tracks.none(), lines=(LineView(points, Counter({1: 3, 2: 1}), NONE),)))
    one = draw(TrackedFrame(Tracks.none(), lines=(LineView(points, Counter({1: 3}), NONE),)))
    rows = [row for row, differs in enumerate((both != one)[:, 160:].any((1, 2))) if differs]
    filled = np.flatnonzero((one != FRAME)[:, 160:].any((1, 2)))
    assert min(rows) > max(filled), "the second row is below the first"


@pytest.mark.parametrize(
    "corners",
    [
        ((50, 50), (150, 50), (100, 150)),
        ((-50, -50), (400, -50), (400, 400), (-50, 400)),
        ((250, 150), (350, 150), (350, 250)),
    ],
)
def test_zones_tint_the_picture(corners: tuple) -> None:
    zone = ZoneView(corners, Counter({1: 2}), NONE, Counter({k: k for k in range(12)}))
    drawn = draw(TrackedFrame(Tracks.none(), zones=(zone,)))
    x, y = np.clip(np.mean(corners, 0), 0, (280, 180)).astype(int)
    assert (drawn[y, x] != FRAME[y, x]).any()


def test_a_label_beyond_the_names_is_shown_as_a_number() -> None:
    draw(TrackedFrame(tracks((1, 9, 20, 30, 60, 70))))


@pytest.mark.parametrize("shape", [(90, 40, 3), (40, 90, 3), (2, 2, 3), (2000, 1, 3)])
def test_frames_of_any_shape(shape: tuple) -> None:
    frame = np.full(shape, 90, np.uint8)
    height, width = shape[:2]
    line = LineView(((0, height / 2), (width, height / 2)), Counter({1: 1}), NONE)
    zone = ZoneView(((0, 0), (width, 0), (0, height)), NONE, NONE, NONE)
    trail = np.array([(0.0, 0.0), (width, height)])
    draw(TrackedFrame(tracks((1, 1, 0, 0, width, height)), (trail,), (line,), (zone,)), frame)
