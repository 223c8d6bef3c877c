"""Measure the trackers on synthetic scenes: HOTA, IDF1, MOTA, id switches and time, excluding the detector.

python -m benchmarks.tracking
python -m benchmarks.tracking --seeds 1 --trackers deepsort --device cuda
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.common.tracking_scenes import FPS, SCENES, Scene, with_seed
from torch_utils.evaluation.tracking_metrics import score_tracks
from utils.cli.options import TRACKERS
from utils.tracking.tracker import create_tracker
from utils.tracking.tracks import Tracks

THRESHOLD = 0.3
HEAD = f"{'scene':<22}{'HOTA':>7}{'DetA':>7}{'AssA':>7}{'IDF1':>7}{'MOTA':>7}{'switches':>10}{'ms a frame':>12}"


def track_scene(scene: Scene, tracker_name: str, buffer: float, device: str) -> tuple[list[Tracks], list[float]]:
    """Tracks and seconds of every frame."""
    tracker = create_tracker(tracker_name, threshold=THRESHOLD, fps=FPS, buffer=buffer, device=device)
    frames, seconds = [], []
    for number, detections in enumerate(scene.detections()):
        picture = scene.picture(number)
        started = time.perf_counter()
        frames.append(tracker.update(picture, detections))
        seconds.append(time.perf_counter() - started)
    return frames, seconds


def row(
    name: str, truth: Sequence[Sequence[Tracks]], predicted: Sequence[Sequence[Tracks]], seconds: list[float]
) -> str:
    """Format a line of the table."""
    s = score_tracks(truth, predicted)
    numbers = "".join(f"{value:>7.3f}" for value in (s.hota, s.detection, s.association, s.idf1, s.mota))
    return f"{name:<22}{numbers}{s.id_switches:>10}{median(seconds) * 1e3:>12.2f}"


def main() -> None:
    """Print a table for each tracker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each scene, with different detection errors")
    parser.add_argument("--trackers", nargs="+", default=TRACKERS, choices=TRACKERS)
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--buffer", type=float, default=1.0, help="seconds, see --track-buffer")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for name in options.trackers:
        print(f"{name}, {options.seeds} x {len(options.scenes)} scenes\n{HEAD}")
        all_truth, all_predicted, all_seconds = [], [], []
        for scene_name in options.scenes:
            truth, predicted, seconds = [], [], []
            for seed in range(options.seeds):
                scene = with_seed(SCENES[scene_name], seed)
                frames, times = track_scene(scene, name, options.buffer, options.device)
                truth.append(scene.truth())
                predicted.append(frames)
                seconds += times
            print(row(scene_name, truth, predicted, seconds), flush=True)
            all_truth += truth
            all_predicted += predicted
            all_seconds += seconds
        print(row("all", all_truth, all_predicted, all_seconds), "\n")


if __name__ == "__main__":
    main()
