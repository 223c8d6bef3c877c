"""Our scores against TrackEval's, the reference, on made scenes and on noise."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.tracking_scenes import SCENES
from tests.conftest import full_among
from tests.support.tracks import tracks
from torch_utils.evaluation.tracking_metrics import TrackingScores, score_tracks
from utils.tracking.logs import MotLog
from utils.tracking.tracker import create_tracker
from utils.tracking.tracks import Tracks, pairwise_iou

FRAME = np.zeros((1, 1, 3), np.uint8)


def noise(seed: int, frames: int = 25) -> tuple[list[Tracks], list[Tracks]]:
    """Objects, and tracks that drift, change their ids, are missing, and are where nothing is."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 20 + 20 * seed, (6, 2))  # the lower the seed, the more they overlap
    truth, found = [], []
    ids = np.arange(1, 7)
    for _ in range(frames):
        places = places + rng.normal(0, 4, places.shape)
        boxes = np.concatenate([places, places + 30], 1)
        if rng.random() < 0.3:
            ids = rng.permutation(ids)
        valid, seen = rng.random(6) < 0.85, rng.random(6) < 0.8
        labels = 1 + np.arange(6) % 2
        truth.append(tracks(*np.column_stack([np.arange(1, 7), labels, boxes])[valid & (rng.random() < 0.95)]))
        moved = boxes + rng.normal(0, 5, boxes.shape)
        found.append(tracks(*np.column_stack([ids * 2 + labels, labels, moved])[seen & (rng.random() < 0.95)]))
    return truth, found


def theirs(truth: Sequence[Sequence[Tracks]], found: Sequence[Sequence[Tracks]]) -> dict[str, float]:
    """TrackEval's numbers of each class of each video, added up over videos and then over classes, as it does."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    labels = {int(label) for video in (*truth, *found) for frame in video for label in frame.labels}
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = [HOTA(), CLEAR({"PRINT_CONFIG": False}), Identity({"PRINT_CONFIG": False})]
        results: dict[str, float] = {}
        for metric in metrics:
            of_class = {}
            for label in labels:
                videos = enumerate(zip(truth, found, strict=True))
                of_class[label] = metric.combine_sequences(
                    {number: metric.eval_sequence(_their_data(*pair, label)) for number, pair in videos}
                )
            results |= metric.combine_classes_det_averaged(of_class)
    return results


def _their_data(truth: Sequence[Tracks], found: Sequence[Tracks], label: int) -> dict:
    truth, found = ([f.where(f.labels == label) for f in frames] for frames in (truth, found))
    numbers = [
        {i: k for k, i in enumerate(sorted({int(i) for f in frames for i in f.ids}))} for frames in (truth, found)
    ]
    gt_ids, tracker_ids = (
        [np.array([names[int(i)] for i in f.ids], int) for f in frames]
        for names, frames in zip(numbers, (truth, found), strict=True)
    )
    return {
        "num_timesteps": len(truth),
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "similarity_scores": [pairwise_iou(a.boxes, b.boxes) for a, b in zip(truth, found, strict=True)],
        "num_gt_ids": len(numbers[0]),
        "num_tracker_ids": len(numbers[1]),
        "num_gt_dets": sum(map(len, truth)),
        "num_tracker_dets": sum(map(len, found)),
    }


def check_equal(ours: TrackingScores, reference: dict[str, float]) -> None:
    for value, name in (
        (ours.hota, "HOTA"), (ours.detection, "DetA"), (ours.association, "AssA"), (ours.idf1, "IDF1"),
        (ours.mota, "MOTA"), (ours.id_switches, "IDSW"), (ours.misses, "CLR_FN"), (ours.false_alarms, "CLR_FP"),
    ):  # fmt: skip
        assert value == pytest.approx(np.mean(reference[name]), abs=1e-9), name


@pytest.mark.parametrize("seed", range(8))
def test_scores_of_noise_are_trackevals(seed: int) -> None:
    pytest.importorskip("trackeval")
    truth, found = zip(*(noise(10 * seed + video) for video in range(1 + seed % 3)), strict=True)
    ours = score_tracks(truth, found)
    assert ours.id_switches > 0
    check_equal(ours, theirs(truth, found))


@pytest.mark.parametrize(
    "name", ["confused classes", *full_among(OTHERS := ["meeting", "crowd, moving camera"], OTHERS)]
)
def test_scores_of_tracked_scenes_are_trackevals(name: str) -> None:
    pytest.importorskip("trackeval")
    tracker = create_tracker(threshold=0.3, fps=30)
    truth = SCENES[name].truth()
    found = [tracker.update(FRAME, detections) for detections in SCENES[name].detections()]
    check_equal(score_tracks([truth], [found]), theirs([truth], [found]))


@pytest.mark.full
def test_trackeval_reads_our_files(tmp_path: Path) -> None:
    """As MOTChallenge's: labels and tracks of pedestrians, class 1."""
    trackeval = pytest.importorskip("trackeval")
    truth = [frame.where(frame.labels == 1) for frame in SCENES["crowd"].truth()]
    tracker = create_tracker(threshold=0.3, fps=30)
    found = [tracker.update(FRAME, each.filtered(classes=[1])) for each in SCENES["crowd"].detections()]
    for frames, name in ((truth, "gt/video/gt/gt.txt"), (found, "found/ours/data/video.txt")):
        (tmp_path / name).parent.mkdir(parents=True)
        log = MotLog(tmp_path / name)
        for number, frame in enumerate(frames):
            log.add(number, frame)
        log.close()
    with contextlib.redirect_stdout(io.StringIO()):
        data_set = trackeval.datasets.MotChallenge2DBox(
            {
                "GT_FOLDER": str(tmp_path / "gt"), "TRACKERS_FOLDER": str(tmp_path / "found"), "SKIP_SPLIT_FOL": True,
                "SEQ_INFO": {"video": len(truth)}, "DO_PREPROC": False, "PRINT_CONFIG": False,
            }
        )  # fmt: skip
        raw = data_set.get_raw_seq_data("ours", "video")
        data = data_set.get_preprocessed_seq_data(raw, "pedestrian")
        reference = trackeval.metrics.HOTA().eval_sequence(data)
    assert score_tracks([truth], [found]).hota == pytest.approx(np.mean(reference["HOTA"]), abs=1e-4)


BOX = (0, 0, 10, 10)


def test_perfect_tracks() -> None:
    frames = [tracks((7, 1, i, 0, i + 10, 10), (9, 2, 50, i, 60, i + 10)) for i in range(5)]
    assert score_tracks([frames], [frames]) == TrackingScores(1, 1, 1, 1, 1, 0, 0, 0)


def test_an_id_switch() -> None:
    truth = [tracks((1, 1, *BOX))] * 4
    scores = score_tracks([truth], [[tracks((1, 1, *BOX))] * 2 + [tracks((2, 1, *BOX))] * 2])
    assert scores == TrackingScores(np.sqrt(0.5), 1, 0.5, 0.5, 0.75, 1, 0, 0)


def test_a_match_is_kept_from_one_frame_to_the_next_only() -> None:
    pytest.importorskip("trackeval")
    truth = [tracks((1, 1, *BOX))] * 3
    after_a_miss = [tracks((1, 1, *BOX)), tracks((9, 1, 50, 50, 60, 60)), tracks((1, 1, 2, 0, 12, 10), (2, 1, *BOX))]
    at_once = [after_a_miss[0], after_a_miss[0], after_a_miss[2]]
    for found, switches in ((after_a_miss, 1), (at_once, 0)):
        scores = score_tracks([truth], [found])
        assert scores.id_switches == switches
        check_equal(scores, theirs([truth], [found]))


def test_the_wrong_class_is_a_miss_and_a_false_alarm() -> None:
    scores = score_tracks([[tracks((1, 1, *BOX))] * 3], [[tracks((1, 2, *BOX))] * 3])
    assert (scores.hota, scores.idf1, scores.mota, scores.misses, scores.false_alarms) == (0, 0, -1, 3, 3)


def test_the_same_id_in_two_videos_is_two_objects() -> None:
    truth = [[tracks((1, 1, *BOX))] * 3] * 2
    one = score_tracks(truth, [[tracks((1, 1, *BOX))] * 3, [tracks((2, 1, *BOX))] * 3])
    assert one == score_tracks(truth, truth)
    assert one.hota == 1


@pytest.mark.parametrize(
    ("truth", "found", "misses", "alarms"),
    [([], [], 0, 0), ([tracks()], [tracks()], 0, 0), ([tracks((1, 1, *BOX))], [tracks()], 1, 0),
     ([tracks()], [tracks((1, 1, *BOX))], 0, 1)],
)  # fmt: skip
def test_nothing_to_see(truth: list, found: list, misses: int, alarms: int) -> None:
    scores = score_tracks([truth], [found])
    assert (scores.misses, scores.false_alarms, scores.hota) == (misses, alarms, 0)


def test_videos_and_frames_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_tracks([[tracks()]], [[]])
    with pytest.raises(ValueError, match="zip"):
        score_tracks([[tracks()]], [])
