"""Measure frames per second of a whole video, file to file, ours against a serial loop, in turns.

OMP_NUM_THREADS=1 taskset -c 0,1 python -m benchmarks.video

The serial loop reimplements the predecessor's: decode, convert to float and resize, detect one frame, draw with
anti-aliased lines, write mp4v. The stub detector sleeps, as a CPU does while a GPU works: 2 ms a call (a small model,
bound by the launches of its kernels, for which a batch of 4 takes as long as one frame) or 2 ms an image (a large one).
"""

import argparse
import logging
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import torch

from benchmarks.common.serial import NAMES, decoded, detected_and_drawn, detectors
from utils.detect.detector import Detector
from utils.video.annotators import DetectionAnnotator
from utils.video.pipeline import PipelineReport, VideoPipeline
from utils.video.sources import open_video
from utils.video.writers import CODECS, open_writer


def serial(path: Path, out: Path, detector: Detector, size: int) -> float:
    """Frames per second of the predecessor's loop."""
    started = time.perf_counter()
    capture = cv2.VideoCapture(str(path))
    width, height = (int(capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), 30, (width, height))
    frames = 0
    for drawn in detected_and_drawn(decoded(capture), detector, size):
        writer.write(drawn)
        frames += 1
    writer.release()
    capture.release()
    return frames / (time.perf_counter() - started)


def pipelined(path: Path, out: Path, detector: Detector, codec: str, batch: int) -> PipelineReport:
    """Process the video with our pipeline."""
    source = open_video(str(path))
    writer = open_writer(out, source.info, codec=codec)
    return report_of(VideoPipeline(source, detector, DetectionAnnotator(NAMES), writer, batch=batch))


def report_of(pipeline: VideoPipeline) -> PipelineReport:
    """Run the pipeline to its end and return its report; raises the error that stopped it."""
    with pipeline:
        pipeline.wait()
    if pipeline.report.error is not None:
        raise pipeline.report.error
    return pipeline.report


def long_video(path: Path, out: Path, frames: int) -> Path:
    """Write a video of this many frames by repeating another, as H.264, as phones and cameras do."""
    writer, number = None, 0
    while number < frames:
        source = open_video(str(path))
        writer = writer or open_writer(out, source.info, sound=False)
        for frame in islice(source.frames(), frames - number):
            writer.write(frame.image, float(number / source.info.rate))
            number += 1
        source.close()
    writer.close()
    return out


def main() -> None:
    """Run all variants in turns; print medians and ratios."""
    parser = argparse.ArgumentParser(description="Frames a second of a whole video, ours against a serial loop.")
    parser.add_argument("--input", default="example_test_data/video_1.mp4")
    parser.add_argument("--times", type=int, default=3, help="repetitions of the input")
    parser.add_argument("--imgsz", type=int, default=360)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--model", help="also measure a real detector with random weights on the CPU, for example fasterrcnn_nano"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        length = open_video(options.input).info.length
        path = long_video(Path(options.input), Path(folder) / "in.mp4", options.times * length)
        out = Path(folder) / "out.mp4"
        for name, detector in detectors(options.imgsz, options.model).items():
            serial(path, out, detector, options.imgsz)
            pipelined(path, out, detector, CODECS[0], options.batch)
            rates: list[float] = []
            cpu: dict[str, list[float]] = {way: [] for way in ("serial", *CODECS)}  # ms a frame
            frames = open_video(str(path)).info.length
            reports: dict[str, list[PipelineReport]] = {codec: [] for codec in CODECS}
            for _ in range(options.rounds):
                started = time.process_time()
                rates.append(serial(path, out, detector, options.imgsz))
                cpu["serial"].append(1e3 * (time.process_time() - started) / frames)
                for codec, several in reports.items():
                    started = time.process_time()
                    several.append(pipelined(path, out, detector, codec, options.batch))
                    cpu[codec].append(1e3 * (time.process_time() - started) / frames)
            one = median(rates)
            print(f"{name}: serial {one:.0f} frames a second, {median(cpu['serial']):.2f} ms of CPU a frame")
            for codec, several in reports.items():
                middle = sorted(several, key=lambda report: report.rate)[len(several) // 2]
                times, of_cpu = middle.rate / one, median(cpu[codec])
                print(f"  ours, {codec}: {middle.rate:.0f}, {times:.2f} times, {of_cpu:.2f} ms of CPU")
                print(f"    {middle.summary()}")


if __name__ == "__main__":
    main()
