"""inference_video.py as users run it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inference_video
import sahi_inference
from tests.conftest import HANG, ROOT, squares
from tests.support.checkpoints import write_checkpoint
from tests.support.videos import is_faststart, read_back, write_video
from utils.cli.flags import parse_options
from utils.cli.options import SahiOptions, VideoOptions
from utils.errors import UserError
from utils.images.image_files import write_image
from utils.video.types import VideoError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights that finds many boxes, trained, as it says, at 64 px."""
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.pth")


@pytest.fixture
def detect(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs main() in `tmp_path`; returns the folder of results."""
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments: object) -> Path:
        argv = ["--weights", str(weights), "--device", "cpu", "-o", "out", *map(str, arguments)]
        inference_video.main(parse_options(VideoOptions, "", argv))
        return tmp_path / "out"

    run_main.weights = weights
    return run_main


def frames(count: int, height: int = 120, width: int = 160) -> list[np.ndarray]:
    return [squares(np.random.default_rng(i), height, width, 3)[0] for i in range(count)]


def test_a_video_by_the_script(weights: Path, run, tmp_path: Path) -> None:
    """Faults of the predecessor: always 30 fps, never released; boxes drawn on, and logged in pixels of, the resized
    frame."""
    write_video(tmp_path / "clip.v1.mp4", frames(20), rate=25, sound="aac")
    done = run("inference_video.py", "--weights", weights, "--input", "clip.v1.mp4", "--log-json", "-th", 0.4)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs/inference/res_1"
    assert sorted(os.listdir(folder)) == ["clip.v1.mp4", "log.json"]
    drawn, times = read_back(folder / "clip.v1.mp4")
    assert len(drawn) == 20
    np.testing.assert_allclose(times, np.arange(20) / 25, atol=1e-3)
    assert drawn[0].shape == (120, 160, 3)
    assert np.abs(drawn[0].astype(int) - frames(1)[0]).max() > 100, "boxes are drawn"
    assert is_faststart(folder / "clip.v1.mp4")
    for words in ("clip.v1.mp4: 160 x 120 px, 25 frames a second, 20 frames", "H.264 in an MP4, with sound (aac)"):
        assert words in done.stdout
    assert "20 frames, " in done.stdout
    assert "FPS from the first frame read to the closed file" in done.stdout
    assert "Stages: read " in done.stdout
    log = json.loads((folder / "log.json").read_text())
    assert [image["file_name"] for image in log["images"]][:2] == ["frame_000001", "frame_000002"]
    assert [(i["id"], i["frame"], i["time"]) for i in log["images"]] == [(n + 1, n, n / 25) for n in range(20)]
    assert {(i["height"], i["width"]) for i in log["images"]} == {(120, 160)}
    assert max(a["bbox"][0] + a["bbox"][2] for a in log["annotations"]) > 100  # in pixels of the video
    assert min(a["score"] for a in log["annotations"]) >= 0.4
    assert [a["id"] for a in log["annotations"]] == list(range(1, 1 + len(log["annotations"])))


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_playable_video_and_the_log(weights: Path, tmp_path: Path, number: signal.Signals) -> None:
    for i, picture in enumerate(frames(8)):
        write_image(tmp_path / f"{i}.png", picture)
    for i in range(8, 3000):
        os.link(tmp_path / f"{i % 8}.png", tmp_path / f"{i}.png")
    script = [sys.executable, ROOT / "inference_video.py"]
    words = [*script, "-w", weights, "-i", ".", "-o", "out", "-d", "cpu", "--log-json"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + HANG
        video = tmp_path / "out" / f"{tmp_path.name}.mp4"
        while time.monotonic() < deadline and not (video.exists() and video.stat().st_size > 2000):
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=HANG)
    assert process.returncode == 128 + number, err
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    drawn, _ = read_back(video)
    log = json.loads((tmp_path / "out/log.json").read_text())
    assert 0 < len(drawn) == len(log["images"]) < 3000
    assert f"{len(drawn)} frames, " in out
    assert is_faststart(video)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["log.json", video.name])


def test_standard_input(weights: Path, run: Callable, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames(8))
    done = run("inference_video.py", "-w", weights, "-i", "-", "-o", "out", "-d", "cpu", stdin=path)
    assert done.returncode == 0, done.stderr
    assert len(read_back(tmp_path / "out/stdin.mp4")[0]) == 8


def test_portrait_is_whole(detect, tmp_path: Path) -> None:
    """Fault of the predecessor: portrait images were halved."""
    folder = detect("-i", write_video(tmp_path / "a.mp4", frames(4), rotation=90), "-th", 1)
    drawn, _ = read_back(folder / "a.mp4")
    assert drawn[0].shape == (160, 120, 3)
    assert np.abs(drawn[0].astype(int) - np.rot90(frames(1)[0])).mean() < 6


def test_a_variable_rate_and_an_odd_size(detect, tmp_path: Path) -> None:
    times = [0, 0.04, 0.5, 0.54, 2.0]
    path = write_video(tmp_path / "a.mov", frames(5, 121, 161), times=times, codec="png", pixels="rgb24")
    drawn, got = read_back(detect("-i", path) / "a.mp4")
    np.testing.assert_allclose(got, times, atol=1e-3)
    assert drawn[0].shape == (122, 162, 3)


def test_tracks_are_drawn_and_written_for_every_frame(
    detect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults of the predecessor: the tracker was not called on frames without detections, and its boxes were drawn on
    the resized frame."""
    path = write_video(tmp_path / "a.mp4", [frames(1)[0]] * 8)
    folder = detect("-i", path, "--track", "--log-json", "--count-line", "0,0.5,1,0.5", "-th", 0.4)
    names = ["a.mp4", "a_counts.json", "a_tracks.json", "a_tracks.txt", "log.json"]
    assert sorted(os.listdir(folder)) == names
    rows = [row.split(",") for row in (folder / "a_tracks.txt").read_text().splitlines()]
    assert {int(row[0]) for row in rows} >= {3, 4, 5, 6, 7, 8}
    assert max(float(row[2]) + float(row[4]) for row in rows) > 100  # in pixels of the video
    assert len(read_back(folder / "a.mp4")[0]) == 8
    log = json.loads((folder / "log.json").read_text())
    assert len(log["images"]) == 8
    assert min(a["score"] for a in log["annotations"]) >= 0.4
    assert f"8 frames, {len(log['annotations'])} detections" in capsys.readouterr().out  # not the tracker's weak ones


@pytest.mark.parametrize("words", [("--count-line", "0,0.5,1,0.5"), ("--tracker", "deepsort"), ("--no-trails",)])
def test_flags_of_tracking_need_the_switch(detect, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"{words[0]} is for tracking: add --track, or drop it"):
        detect("-i", "no.mp4", *words)


def test_all_that_could_not_be_written_is_told(
    detect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "log.json")

    monkeypatch.setattr("utils.inference.coco_log.write_atomically", full)
    path = write_video(tmp_path / "a.mkv", frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match=r"a\.mkv: ends after frame \d+"):
        detect("-i", path, "--log-json")
    assert "\nout/log.json: No space left on device\n" in capsys.readouterr().out


def test_classes_and_thresholds_of_them(detect, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames(3))
    folder = detect("-i", path, "--classes", 2, "--class-thresholds", "green=0.35", "--log-json", "--codec", "mp4v")
    found = json.loads((folder / "log.json").read_text())["annotations"]
    assert {a["category_id"] for a in found} == {2}
    assert min(a["score"] for a in found) >= 0.35
    with pytest.raises(UserError, match="--classes 7: no such class"):
        detect("-i", path, "--classes", 7)


def test_a_video_that_is_cut_off_is_kept_up_to_there(detect, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mkv", frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match=r"a\.mkv: ends after frame \d+"):
        detect("-i", path, "--log-json")
    drawn, _ = read_back(tmp_path / "out/a.mp4")
    assert len(drawn) > 20
    assert len(json.loads((tmp_path / "out/log.json").read_text())["images"]) == len(drawn)


def test_a_missing_input_is_one_line(weights: Path, run) -> None:
    """Fault of the predecessor: a missing input raised AttributeError."""
    done = run("inference_video.py", "--weights", weights, "--input", "no.mp4")
    assert done.returncode == 2
    assert done.stderr == "error: --input no.mp4: no such file or folder\n"


def test_the_input_is_not_overwritten(detect, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = write_video(tmp_path / "out/a.mp4", frames(3))
    with pytest.raises(UserError, match="which the results would overwrite"):
        detect("-i", path)


def test_no_window_without_a_display(detect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    for flag in ("--show", "--mpl-show"):
        with pytest.raises(UserError, match=f"{flag} needs a display"):
            detect("-i", ROOT / "example_test_data/video_1.mp4", flag)


def test_a_window_follows_and_q_ends(detect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, threads = [], set()

    def waitkey(milliseconds: int) -> int:
        return ord("q") if len(shown) >= 2 else -1

    import threading

    monkeypatch.setattr("utils.video.video_inference.check_display", lambda flag: None)
    monkeypatch.setattr("cv2.imshow", lambda title, bgr: (shown.append(bgr), threads.add(threading.current_thread())))
    monkeypatch.setattr("cv2.waitKey", waitkey)
    monkeypatch.setattr("cv2.destroyAllWindows", lambda: None)
    folder = detect("-i", write_video(tmp_path / "a.mp4", frames(120)), "--show", "-b", 1)
    drawn, _ = read_back(folder / "a.mp4")
    assert 2 <= len(drawn) < 120
    assert threads == {threading.main_thread()}


def test_without_arguments_it_takes_the_video_of_the_repository(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from utils.video.video_inference import open_video_input

    monkeypatch.chdir(ROOT)
    assert open_video_input(parse_options(VideoOptions, "", [])).source.info.name == "example_test_data/video_1.mp4"
    (tmp_path / "a.yaml").write_text("CLASSES: [__background__, red, green]\n")
    with pytest.raises(UserError, match=r"a\.yaml: video_path is missing"):
        open_video_input(parse_options(VideoOptions, "", ["--data", str(tmp_path / "a.yaml")]))


def test_slices_of_each_frame(detect, tmp_path: Path) -> None:
    """Detections equal those of sahi_inference.py on the same frames."""
    for number, frame in enumerate(frames(3)):
        (tmp_path / "frames").mkdir(exist_ok=True)
        write_image(tmp_path / f"frames/{number}.png", frame)
    flags = ("--slice-height", 64, "--slice-width", 64, "--log-json", "-i", "frames")
    found = json.loads((detect("--slice", *flags) / "log.json").read_text())["annotations"]
    argv = ["-w", str(detect.weights), "-d", "cpu", "-o", "images", *map(str, flags)]
    sahi_inference.main(parse_options(SahiOptions, "", argv))
    expected = json.loads((tmp_path / "images/log.json").read_text())["annotations"]
    assert len(found) > 10
    assert [each["image_id"] for each in found] == [each["image_id"] for each in expected]
    for key in ("bbox", "score"):
        np.testing.assert_allclose([each[key] for each in found], [each[key] for each in expected], atol=1e-3)
    tracked = json.loads((detect("--slice", "--track", *flags) / "log.json").read_text())["annotations"]
    assert tracked == found, "what the tracker wants beside enlarges no box"
