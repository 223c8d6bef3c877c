import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.tracking_scenes import CLASS_NAMES, FPS, HEIGHT, SCENES, WIDTH
from utils.cli.options import TrackingOptions
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.annotator import TrackAnnotator, open_track_annotator
from utils.tracking.drawing import TrackedFrame
from utils.tracking.logs import MotLog, read_mot

VIDEO = {"width": WIDTH, "height": HEIGHT, "fps": FPS}
MIDDLE = ((0.5, 0.0), (0.5, 1.0))
SCENE = SCENES["crossing"]


def annotator(folder: Path, threshold: float = 0.3, log_json: bool = False, **options: object) -> TrackAnnotator:
    chosen = TrackingOptions(track=True, **options)
    return open_track_annotator(chosen, CLASS_NAMES, folder / "walk", **VIDEO, threshold=threshold, log_json=log_json)


def follow_scene(work: TrackAnnotator, frames: int = SCENE.frames) -> list[TrackedFrame]:
    detections = SCENE.detections()[:frames]
    return [work.track(number, SCENE.picture(number), found) for number, found in enumerate(detections)]


def test_two_who_cross_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    work = annotator(
        tmp_path, count_line=(MIDDLE,), count_zone=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),), log_json=True
    )
    follow_scene(work)
    work.close()
    counts = json.loads((tmp_path / "walk_counts.json").read_text())
    assert counts == json.loads(json.dumps(work.counts()))
    assert counts["frames"] == SCENE.frames
    assert counts["objects"] == {"person": 2}
    assert counts["lines"] == [{"points": [[320, 0], [320, 360]], "in": {"person": 1}, "out": {"person": 1}}]
    zone = counts["zones"][0]
    assert (zone["in"], zone["out"], zone["objects"]) == ({"person": 1}, {"person": 1}, {"person": 2})
    assert [track["id"] for track in json.loads((tmp_path / "walk_tracks.json").read_text())] == [1, 2]
    assert {int(number) for frame in read_mot(tmp_path / "walk_tracks.txt") for number in frame.ids} == {1, 2}
    assert "Tracked: 2 person" in caplog.text
    assert "Line 320,0,320,360: in 1 person; out 1 person" in caplog.text


def test_a_run_that_is_killed_leaves_its_files(tmp_path: Path) -> None:
    work = annotator(tmp_path, count_line=(MIDDLE,))
    follow_scene(work, 10)
    assert len(read_mot(tmp_path / "walk_tracks.txt")) == 10
    assert json.loads((tmp_path / "walk_counts.json").read_text())["lines"]
    assert not (tmp_path / "walk_tracks.json").exists()


def test_what_was_followed_does_not_change_while_it_waits_to_be_drawn(tmp_path: Path) -> None:
    waiting = annotator(tmp_path, count_line=(MIDDLE,))
    drawn_late = [waiting.draw(SCENE.picture(n), tracked) for n, tracked in enumerate(follow_scene(waiting, 90))]
    at_once = annotator(tmp_path, count_line=(MIDDLE,))
    for number, found in enumerate(SCENE.detections()[:90]):
        picture = SCENE.picture(number)
        np.testing.assert_array_equal(at_once.annotate(number, picture, found), drawn_late[number])
        np.testing.assert_array_equal(picture, SCENE.picture(number))


def test_trails_are_of_the_last_one_and_a_half_seconds(tmp_path: Path) -> None:
    last = follow_scene(annotator(tmp_path), 100)[-1]
    assert max(len(trail) for trail in last.trails) == 45 == 1.5 * FPS
    for trail, feet in zip(last.trails, last.tracks.bottom_centers(), strict=True):
        np.testing.assert_allclose(trail[-1], feet)
    assert follow_scene(annotator(tmp_path, no_trails=True), 5)[-1].trails == ()


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """Objects come and go: what is kept of those that cannot come back is a few numbers."""
    work = annotator(tmp_path, track_buffer=0.1, log_json=True)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number in range(300):
        x = 20.0 + 50 * (number // 10 % 10)
        box = np.array([[x, 20, x + 30, 80]], np.float32)
        work.track(number, frame, Detections(box, np.array([0.9], np.float32), np.array([1])))
    assert work.counts()["objects"]["person"] == 30
    assert len(work._trails._points) < 8
    assert len(work._json._active) < 8


def test_the_score_that_the_detector_must_keep(tmp_path: Path) -> None:
    assert annotator(tmp_path).lowest_score == 0.1


@pytest.mark.parametrize(
    "options", [{"count_line": (((700, 0), (700, 9)),)}, {"count_zone": (((0, 400), (9, 400), (9, 500)),)}]
)
def test_lines_and_zones_beside_the_picture_are_told(options: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside the frame of 640 x 360"):
        annotator(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_closed_keeps_no_other_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError("full")

    work = annotator(tmp_path, log_json=True)
    follow_scene(work, 10)
    monkeypatch.setattr(MotLog, "close", fail)
    with pytest.raises(OSError, match="full"):
        work.close()
    assert json.loads((tmp_path / "walk_counts.json").read_text())["frames"] == 10
    assert len(json.loads((tmp_path / "walk_tracks.json").read_text())) == 2
