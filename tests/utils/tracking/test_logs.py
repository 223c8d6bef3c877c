import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import full_disk
from utils.tracking import logs as tracking_logs
from utils.tracking.logs import CountLog, MotLog, TrackLog, read_mot
from utils.tracking.tracks import Tracks

NAMES = ("__background__", "person", "cär")


def tracks(*rows: tuple) -> Tracks:
    """Rows of id, label, score, x1, y1, x2, y2."""
    values = np.array(rows, np.float64).reshape(-1, 7)
    return Tracks(
        values[:, 3:].astype(np.float32), values[:, 0].astype(np.int64), values[:, 1].astype(np.int64),
        values[:, 2].astype(np.float32),
    )  # fmt: skip


ONE, TWO = (1, 1, 0.9, 0, 0, 10, 20), (2, 2, 0.25, 30.5, 40.25, 50.75, 60)


def test_mot_rows_count_from_one(tmp_path: Path) -> None:
    log = MotLog(tmp_path / "tracks.txt")
    log.add(0, tracks(ONE))
    log.add(1, tracks())
    log.add(2, tracks(ONE, TWO))
    log.close()
    assert (tmp_path / "tracks.txt").read_text() == (
        "1,1,1.00,1.00,10.00,20.00,0.9000,1,-1\n"
        "3,1,1.00,1.00,10.00,20.00,0.9000,1,-1\n"
        "3,2,31.50,41.25,20.25,19.75,0.2500,2,-1\n"
    )


def test_mot_rows_are_read_back(tmp_path: Path) -> None:
    frames = [tracks(), tracks(ONE), tracks(), tracks(TWO, ONE)]
    log = MotLog(tmp_path / "tracks.txt")
    for number, frame in enumerate(frames):
        log.add(number, frame)
    for read, written in zip(read_mot(tmp_path / "tracks.txt"), frames, strict=True):
        for values, expected in zip(vars(read).values(), vars(written).values(), strict=True):
            np.testing.assert_allclose(values, expected, atol=1e-3)
            assert values.dtype == expected.dtype


def test_a_video_without_tracks_is_read_back(tmp_path: Path) -> None:
    MotLog(tmp_path / "tracks.txt").close()
    assert read_mot(tmp_path / "tracks.txt") == []


def test_what_was_added_is_in_the_file_of_a_run_that_is_killed(tmp_path: Path) -> None:
    """Nothing is closed here."""
    mot, log = MotLog(tmp_path / "tracks.txt"), TrackLog(tmp_path / "tracks.json", NAMES, patience=1)
    assert json.loads((tmp_path / "tracks.json").read_text()) == []
    for number, frame in enumerate([tracks(ONE), tracks(TWO), tracks(TWO), tracks(TWO)]):
        mot.add(number, frame)
        log.add(number, frame)
        assert len((tmp_path / "tracks.txt").read_text().splitlines()) == number + 1
        written = json.loads((tmp_path / "tracks.json").read_text())
        assert [track["id"] for track in written] == ([1] if number >= 2 else [])


def test_a_full_disk_names_the_file_and_leaves_a_whole_list(tmp_path: Path) -> None:
    mot, log = MotLog(tmp_path / "tracks.txt"), TrackLog(tmp_path / "tracks.json", NAMES, patience=1)
    log.add(0, tracks(ONE))
    for frame in range(1, 5):
        log.add(frame, tracks(TWO))
    before = (tmp_path / "tracks.json").read_bytes()
    assert len(json.loads(before)) == 1
    with full_disk(len(before) + 20), pytest.raises(OSError, match=r"tracks\.json"):
        log.close()
    assert (tmp_path / "tracks.json").read_bytes() == before
    with full_disk(), pytest.raises(OSError, match=r"tracks\.txt"):
        mot.add(0, tracks(ONE))
    with full_disk(), pytest.raises(OSError, match=r"tracks\.txt"):
        mot.close()


def test_json_of_tracks(tmp_path: Path) -> None:
    log = TrackLog(tmp_path / "tracks.json", NAMES, patience=5)
    for number, frame in enumerate([tracks(ONE), tracks(), tracks(TWO, ONE)]):
        log.add(number, frame)
    log.close()
    assert json.loads((tmp_path / "tracks.json").read_text()) == [
        {
            "id": 1, "class_id": 1, "class": "person", "first_frame": 0, "last_frame": 2, "frames": [0, 2],
            "boxes": [[0, 0, 10, 20]] * 2, "scores": [0.9, 0.9],
        },
        {
            "id": 2, "class_id": 2, "class": "cär", "first_frame": 2, "last_frame": 2, "frames": [2],
            "boxes": [[30.5, 40.25, 50.75, 60]], "scores": [0.25],
        },
    ]  # fmt: skip


def test_a_track_is_whole_where_frames_of_the_video_were_left_out(tmp_path: Path) -> None:
    """Live videos lose frames: the tracker, which does not see them, keeps its tracks."""
    log = TrackLog(tmp_path / "tracks.json", NAMES, patience=2)
    for number, frame in ((0, tracks(ONE)), (50, tracks()), (100, tracks(ONE))):
        log.add(number, frame)
    log.close()
    assert [track["frames"] for track in json.loads((tmp_path / "tracks.json").read_text())] == [[0, 100]]


def test_counts_are_written_at_once_then_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(tracking_logs.time, "monotonic", lambda: now[0])
    log, path = CountLog(tmp_path / "counts.json"), tmp_path / "counts.json"
    log.add(lambda: {"n": 1})
    assert json.loads(path.read_text()) == {"n": 1}
    now[0] += 1
    log.add(lambda: {"n": 2})
    assert json.loads(path.read_text()) == {"n": 1}
    log.add(lambda: {"n": 3}, last=True)
    assert json.loads(path.read_text()) == {"n": 3}
    now[0] += 6
    log.add(lambda: {"n": 4})
    assert json.loads(path.read_text()) == {"n": 4}
