"""Both trackers. DeepSORT costs 50 ms a box on a CPU, so it sees few frames."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.common.tracking_scenes import FPS, SCENES, Scene
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.tracker import BYTETRACK, DEEPSORT, TRACKERS, Tracker, create_tracker
from utils.tracking.tracks import Tracks, pairwise_iou

FRAME = np.random.default_rng(0).integers(0, 256, (100, 160, 3)).astype(np.uint8)
TOLD_AFTER = {BYTETRACK: 2, DEEPSORT: 3}  # frames


def found(*rows: tuple) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    values = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(values[:, :4].astype(np.float32), values[:, 4].astype(np.float32), values[:, 5].astype(np.int64))


def tracker(name: str, **options: object) -> Tracker:
    return create_tracker(name, **({"threshold": 0.3, "fps": 30.0} | options))


def follow(name: str, frames: Sequence[Detections], picture: np.ndarray = FRAME, **options: object) -> list[Tracks]:
    following = tracker(name, **options)
    return [following.update(picture, detections) for detections in frames]


def check(tracks: Tracks) -> None:
    n = len(tracks)
    assert tracks.boxes.shape == (n, 4)
    assert tracks.boxes.dtype == tracks.scores.dtype == np.float32
    assert tracks.ids.dtype == tracks.labels.dtype == np.int64
    assert tracks.ids.shape == tracks.labels.shape == tracks.scores.shape == (n,)
    assert len(set(tracks.ids.tolist())) == n
    assert (tracks.ids >= 1).all()


BOX = (20, 20, 60, 80, 0.9, 1)
SHIFTED = [found((20 + 2 * i, 20, 60 + 2 * i, 80, 0.9, 1)) for i in range(6)]


@pytest.mark.parametrize("name", TRACKERS)
def test_an_object_keeps_its_id_and_the_box_of_its_detection(name: str) -> None:
    frames = follow(name, SHIFTED)
    for number, tracks in enumerate(frames):
        check(tracks)
        if number + 1 >= TOLD_AFTER[name]:
            assert tracks.ids.tolist() == [1]
            assert tracks.labels.tolist() == [1]
            np.testing.assert_array_equal(tracks.boxes, SHIFTED[number].boxes)
            np.testing.assert_array_equal(tracks.scores, SHIFTED[number].scores)
        else:
            assert len(tracks) == 0


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_without_detections_are_seen_too(name: str) -> None:
    """Fault of the predecessor: the tracker was not called on frames without detections."""
    frames = follow(name, [found()] * 2 + SHIFTED[:3] + [found()] * 2 + SHIFTED[3:] + [found()])
    for tracks in frames:
        check(tracks)
    assert [len(frames[i]) for i in (0, 1, 5, 6, -1)] == [0] * 5
    assert frames[-2].ids.tolist() == frames[4].ids.tolist() == [1]


@pytest.mark.parametrize("name", TRACKERS)
def test_an_object_that_comes_back_after_the_buffer_is_a_new_one(name: str) -> None:
    """The buffer is in seconds: 0.2 s are 6 frames of 30 a second, and 12 of 60."""
    for gap, fps, expected in ((4, 30.0, [1]), (9, 30.0, [2]), (9, 60.0, [1]), (15, 60.0, [2])):
        frames = follow(name, [found(BOX)] * 3 + [found()] * gap + [found(BOX)] * 3, fps=fps, buffer=0.2)
        assert frames[-1].ids.tolist() == expected, (gap, fps)


@pytest.mark.parametrize("name", TRACKERS)
def test_hostile_boxes_are_no_fault(name: str) -> None:
    """One pixel, less, none, outside of the frame on every side, partly outside, huge, not a number."""
    rows = [
        (10, 10, 11, 11), (10, 10, 10.4, 30), (10, 10, 10, 10), (30, 30, 20, 20), (-50, -50, -10, -10),
        (200, 10, 240, 50), (10, 120, 40, 150), (-20, -20, 30, 30), (140, 80, 200, 140),
        (-1e6, -1e6, 1e6, 1e6), (np.nan, 0, 10, 10), (0, 0, np.inf, 10), (159.5, 0, 160, 100), (0, 0, 160, 100),
    ]  # fmt: skip
    frames = follow(name, [found(*((*row, 0.9, 1 + i % 2) for i, row in enumerate(rows))), found(BOX)] * 3)
    for tracks in frames:
        check(tracks)


def test_a_box_of_one_pixel_is_followed() -> None:
    assert follow(BYTETRACK, [found((10, 10, 11, 11, 0.9, 1))] * 3)[-1].ids.tolist() == [1]
    assert follow(DEEPSORT, [found((10, 10, 11, 11, 0.9, 1))] * 3)[-1].ids.tolist() == [1]


@pytest.mark.parametrize("name", TRACKERS)
def test_no_track_changes_its_class(name: str) -> None:
    """The same box, now of one class, now of the other: two tracks, each of one class."""
    frames = follow(name, [found((20, 20, 60, 80, 0.9, 1 + (i // 4) % 2)) for i in range(12)])
    label_of: dict[int, int] = {}
    for tracks in frames:
        for number, label in zip(tracks.ids.tolist(), tracks.labels.tolist(), strict=True):
            assert label_of.setdefault(number, label) == label
    assert set(label_of.values()) == {1, 2}


def test_a_class_that_is_confused_for_some_frames_keeps_its_track_by_its_low_score() -> None:
    both = found((20, 20, 60, 80, 0.6, 2), (20, 20, 60, 80, 0.2, 1))
    frames = follow(BYTETRACK, [found(BOX)] * 3 + [both] * 3 + [found(BOX)] * 3)
    assert all(1 in tracks.ids[tracks.labels == 1] for tracks in frames[2:])


@pytest.mark.parametrize("name", TRACKERS)
def test_an_object_of_two_classes_has_one_track_that_of_the_better_score(name: str) -> None:
    """The detector suppresses doubles in each class only."""
    double = found((20, 20, 60, 80, 0.6, 2), (21, 20, 60, 80, 0.5, 1), (90, 20, 130, 80, 0.5, 1))
    for threshold in (0.3, 0.05, np.array([0.0, 0.4, 0.4])):
        last = follow(name, [double] * 5, threshold=threshold)[-1]
        assert sorted(last.labels.tolist()) == [1, 2]
        assert sorted(last.boxes[:, 0].tolist()) == [20, 90]


def test_low_scores_keep_a_track_and_start_none() -> None:
    weak, weakest = found((20, 20, 60, 80, 0.15, 1)), found((20, 20, 60, 80, 0.05, 1))
    assert [t.ids.tolist() for t in follow(BYTETRACK, [found(BOX)] * 2 + [weak] * 3)][1:] == [[1]] * 4
    assert all(len(t) == 0 for t in follow(BYTETRACK, [weak] * 5))
    assert len(follow(BYTETRACK, [found(BOX)] * 2 + [weakest])[-1]) == 0
    assert all(len(t) == 0 for t in follow(DEEPSORT, [weak] * 4))


def test_what_the_detector_has_to_keep() -> None:
    assert tracker(BYTETRACK, threshold=0.3).lowest_score == 0.1
    assert tracker(BYTETRACK, threshold=0.04).lowest_score == 0.04
    assert tracker(DEEPSORT, threshold=0.3).lowest_score == 0.3
    by_label = np.array([0.0, 0.9, 0.05])
    np.testing.assert_array_equal(tracker(BYTETRACK, threshold=by_label).lowest_score, [0.0, 0.1, 0.05])


@pytest.mark.parametrize("name", TRACKERS)
def test_thresholds_may_be_of_single_classes(name: str) -> None:
    frames = [found((20, 20, 60, 80, 0.6, 1), (90, 20, 130, 80, 0.6, 2))] * 3
    assert follow(name, frames, threshold=np.array([0.0, 0.7, 0.5]))[-1].labels.tolist() == [2]


@pytest.mark.parametrize("name", TRACKERS)
def test_ids_are_counted_over_all_classes_in_the_order_in_which_tracks_are_told(name: str) -> None:
    boxes = [(10, 10, 40, 40, 0.9, 2), (60, 10, 90, 40, 0.9, 1), (110, 10, 140, 40, 0.9, 2)]
    seen: list[int] = []
    for tracks in follow(name, [found(*boxes[: 1 + i // 3]) for i in range(9)]):
        assert tracks.ids.tolist() == sorted(tracks.ids.tolist())
        seen += [number for number in tracks.ids.tolist() if number not in seen]
    assert seen == [1, 2, 3]


def test_a_new_tracker_counts_from_one_again() -> None:
    for _ in range(2):
        assert follow(BYTETRACK, [found(BOX)] * 2)[-1].ids.tolist() == [1]


def ids_over_time(scene: Scene) -> dict[int, list[int]]:
    """Of each object, the ids of the tracks that overlap it, in order, without repetitions."""
    following = tracker(BYTETRACK, fps=FPS)
    ids: dict[int, list[int]] = {}
    blank = np.zeros((1, 1, 3), np.uint8)
    for truth, detections in zip(scene.truth(), scene.detections(), strict=True):
        tracks = following.update(blank, detections)
        overlap = pairwise_iou(truth.boxes, tracks.boxes) * (truth.labels[:, None] == tracks.labels)
        for row, best in enumerate(overlap.argmax(1) if len(tracks) else ()):
            if overlap[row, best] > 0.6:
                known = ids.setdefault(int(truth.ids[row]), [])
                if not known or known[-1] != tracks.ids[best]:
                    known.append(int(tracks.ids[best]))
    return ids


@pytest.mark.parametrize("name", ["crossing", "occlusion", "meeting"])
def test_ids_survive_occlusion_and_crossing(name: str) -> None:
    ids = ids_over_time(SCENES[name])
    assert len(ids) == len(SCENES[name].walkers)
    assert all(len(known) == 1 for known in ids.values()), ids
    assert len({known[0] for known in ids.values()}) == len(ids)


def test_looks_tell_apart_what_motion_does_not() -> None:
    """Behind a pillar two objects stop and change direction: DeepSORT knows them again by their looks."""
    picture = FRAME.copy()
    red, green = np.array([200, 40, 40], np.uint8), np.array([40, 200, 40], np.uint8)

    def frame(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        drawn = picture.copy()
        drawn[20:80, 10:50], drawn[20:80, 100:140] = left, right
        drawn[20:80:6, 10:50] //= 2
        return drawn

    places = (10, 20, 50, 80, 0.9, 1), (100, 20, 140, 80, 0.9, 1)
    following = tracker(DEEPSORT)
    for _ in range(4):
        tracks = following.update(frame(red, green), found(*places))
    assert tracks.ids.tolist() == [1, 2]
    left_id = int(tracks.ids[tracks.boxes[:, 0] == 10][0])
    for _ in range(3):
        tracks = following.update(frame(red, green), found(places[0]))
    assert tracks.ids.tolist() == [left_id]


def test_hundreds_of_objects_are_followed() -> None:
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(20)), 2).reshape(-1, 2) * 100.0
    following = tracker(BYTETRACK)
    for _ in range(5):
        moved = corners + rng.normal(0, 1, corners.shape)
        rows = np.concatenate([moved, moved + 60, np.full((400, 1), 0.9), np.ones((400, 1))], 1)
        tracks = following.update(FRAME, found(*rows))
    check(tracks)
    assert tracks.ids.tolist() == list(range(1, 401))


def test_inputs_are_left_alone() -> None:
    for name in TRACKERS:
        frame, detections = FRAME.copy(), found(BOX, (200, 200, 300, 300, 0.9, 1))
        before = [values.copy() for values in vars(detections).values()]
        follow(name, [detections] * 3, frame)
        np.testing.assert_array_equal(frame, FRAME)
        for values, old in zip(vars(detections).values(), before, strict=True):
            np.testing.assert_array_equal(values, old)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tracker("sort"), "--tracker sort: expected bytetrack or deepsort"),
        (lambda: tracker(BYTETRACK, fps=0.0), "needs the frame rate"),
        (lambda: tracker(BYTETRACK, fps=float("nan")), "needs the frame rate"),
    ],
)
def test_mistakes_are_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(("name", "package"), [(BYTETRACK, "trackers"), (DEEPSORT, "deep_sort_realtime")])
def test_a_missing_package_is_told(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in [m for m in sys.modules if m.split(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install"):
        tracker(name)
