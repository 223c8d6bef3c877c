"""Measure images per second from files to files, ours against a serial loop, in turns.

OMP_NUM_THREADS=1 taskset -c 0,1 python -m benchmarks.inference [--input FOLDER]

The serial loop reimplements the predecessor's: read, convert to float and resize, detect one image, draw with
anti-aliased lines, write. The stub detector sleeps, as a CPU does while a GPU works: 2 ms a call (a small model, bound
by the launches of its kernels) or 2 ms an image (a large one). The limits are the rates of one thread in each stage
alone; up to four threads share reading and preparing, and two share drawing and writing, if there are enough cores.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import cv2
import torch

from benchmarks.common.serial import NAMES, detected_and_drawn, detectors
from utils.cli.options import ResultKinds
from utils.detect.detector import Detector
from utils.images.image_files import read_image, write_image
from utils.inference.image_inference import detect_images
from utils.inference.image_results import ImageResults
from utils.inference.sources import ImageFiles, find_images
from utils.visualize.drawing import draw_detections


def serial(files: ImageFiles, out: Path, detector: Detector, size: int) -> float:
    """Images per second of the predecessor's loop."""
    started = time.perf_counter()
    pictures = (cv2.imread(str(path)) for path in files.paths)
    for name, drawn in zip(files.names, detected_and_drawn(pictures, detector, size), strict=True):
        cv2.imwrite(str(out / name), drawn)
    return len(files) / (time.perf_counter() - started)


def overlapped(files: ImageFiles, out: Path, detector: Detector, batch: int) -> float:
    """Images per second of ours."""
    results = ImageResults(out, ResultKinds(), NAMES, files.names)
    return len(files) / detect_images(detector, files, results, keep=lambda detections: detections, batch=batch).seconds


def limits(files: ImageFiles, out: Path, detector: Detector, batch: int) -> dict[str, float]:
    """Milliseconds per image of one thread in each stage alone."""
    images = [read_image(path) for path in files.paths[: 4 * batch]]
    prepared = [detector.prepare(image) for image in images]
    groups = [prepared[i : i + batch] for i in range(0, len(prepared), batch)]
    detections = [each for group in groups for each in detector.detect(group)]
    pictures = [draw_detections(image, each, NAMES) for image, each in zip(images, detections, strict=True)]
    count = len(images)

    def milliseconds(work: Callable[..., object], *several: Sequence[object]) -> float:
        started = time.perf_counter()
        for arguments in zip(*several, strict=True):
            work(*arguments)
        return 1e3 * (time.perf_counter() - started) / count

    return {
        "read": milliseconds(read_image, files.paths[:count]),
        "prepare": milliseconds(detector.prepare, images),
        "detect": milliseconds(detector.detect, groups),
        "draw": milliseconds(lambda image, each: draw_detections(image, each, NAMES), images, detections),
        "write": milliseconds(write_image, [out / name for name in files.names[:count]], pictures),
    }


def main() -> None:
    """Run both in turns; print medians, ratios and limits."""
    parser = argparse.ArgumentParser(description="Images a second from files to files, ours against a serial loop.")
    parser.add_argument("--input", default="example_test_data/image_1.jpg", help="an image, a folder or a pattern")
    parser.add_argument("--images", type=int, default=96, help="number of images; the input is repeated as needed")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--model", help="also measure a real detector with random weights on the CPU, for example fasterrcnn_nano"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    paths = find_images(options.input).paths
    paths = [paths[i % len(paths)] for i in range(options.images)]
    files = ImageFiles(paths, [f"{i}{path.suffix}" for i, path in enumerate(paths)])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name, detector in detectors(options.imgsz, options.model).items():
            serial(files, out, detector, options.imgsz)
            overlapped(files, out, detector, options.batch)
            rates: dict[str, list[float]] = {"serial": [], "ours": []}
            cpu: dict[str, list[float]] = {"serial": [], "ours": []}  # ms an image
            for _ in range(options.rounds):
                for way, several in rates.items():
                    started = time.process_time()
                    if way == "serial":
                        several.append(serial(files, out, detector, options.imgsz))
                    else:
                        several.append(overlapped(files, out, detector, options.batch))
                    cpu[way].append(1e3 * (time.process_time() - started) / len(files))
            one, other = (median(several) for several in rates.values())
            print(f"{name}: serial {one:.1f} images a second, {median(cpu['serial']):.2f} ms of CPU an image")
            print(f"  ours {other:.1f}, {other / one:.2f} times, {median(cpu['ours']):.2f} ms of CPU")
            times = limits(files, out, detector, options.batch)
            print("  limits of one thread: " + ", ".join(f"{k} {v:.2f} ms" for k, v in times.items()))


if __name__ == "__main__":
    main()
