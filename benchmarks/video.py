"""Frames a second of a whole video, from the first frame read to the closed file: ours against a serial loop, in turns.

OMP_NUM_THREADS=1 taskset -c 0,1 python -m benchmarks.video

The serial loop is the predecessor's, restated: decode, convert to float and resize, detect one frame, draw with
anti-aliased lines, write mp4v. The stub detector sleeps, as a CPU does while a GPU works: 2 ms a call (a small model,
bound by the launches of its kernels, for which a batch of 4 takes as long as one frame) or 2 ms a frame (a large one).
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from models.create_fasterrcnn_model import create_model
from utils.detections import Detections
from utils.detector import BatchDetector, Detector, DetectorFacts
from utils.drawing import class_color
from utils.size_rule import SizeRule
from utils.torch_detector import TorchDetector
from utils.video_annotators import DetectionAnnotator
from utils.video_pipeline import Report, VideoPipeline
from utils.video_sources import open_video
from utils.video_writers import CODECS, open_writer

BOXES = 20
NAMES = ("__background__", *(f"class {i}" for i in range(1, 6)))


class Stub(BatchDetector):
    """Sleeps, and finds the same boxes everywhere; prepares images as every detector does."""

    def __init__(self, size: int, *, per_frame: bool) -> None:
        super().__init__(DetectorFacts("stub", NAMES, SizeRule(size), "nowhere", source="none"))
        self._per_frame = per_frame
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 250, (BOXES, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 90, (BOXES, 2))], 1).astype(np.float32)
        self.found = Detections(boxes, rng.uniform(0.3, 1, BOXES).astype(np.float32), rng.integers(1, 6, BOXES))

    def detect(self, prepared: Sequence[object]) -> list[Detections]:
        """See Detector."""
        time.sleep(0.002 * (len(prepared) if self._per_frame else 1))
        return [self.found] * len(prepared)

    def detect_batch(self, batch: object) -> list[Detections]:
        """Never called."""
        raise NotImplementedError


def serial(path: Path, out: Path, size: int, detect: Callable[[np.ndarray], Detections]) -> float:
    """Frames a second of the predecessor's loop."""
    started = time.perf_counter()
    capture = cv2.VideoCapture(str(path))
    width, height = (int(capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    scale = size / min(width, height)
    resized = round(width * scale), round(height * scale)
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), 30, (width, height))
    frames = 0
    while True:
        has_frame, bgr = capture.read()
        if not has_frame:
            break
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.float32)
        image = cv2.resize(rgb, resized) / 255.0
        found = detect(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            x1, y1, x2, y2 = (int(v) for v in box)
            color = class_color(int(label))
            cv2.rectangle(bgr, (x1, y1), (x2, y2), color, 2, cv2.LINE_AA)
            text = f"{NAMES[label]} {score:.2f}"
            (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
            cv2.rectangle(bgr, (x1, y1 - h - 3), (x1 + w, y1), color, -1, cv2.LINE_AA)
            cv2.putText(bgr, text, (x1, y1 - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        writer.write(bgr)
        frames += 1
    writer.release()
    capture.release()
    return frames / (time.perf_counter() - started)


def pipelined(path: Path, out: Path, detector: Detector, codec: str, batch: int) -> Report:
    """Our pass over the video."""
    source = open_video(str(path))
    writer = open_writer(out, source.facts, codec=codec)
    with VideoPipeline(source, detector, DetectionAnnotator(NAMES), writer, batch=batch) as pipeline:
        pipeline.wait()
    if pipeline.report.error is not None:
        raise pipeline.report.error
    return pipeline.report


def long_video(path: Path, out: Path, times: int) -> Path:
    """The pictures of a video `times` over, as H.264, which telephones and cameras give."""
    writer = None
    for turn in range(times):
        source = open_video(str(path))
        writer = writer or open_writer(out, source.facts, sound=False)
        length = source.facts.length
        for frame in source.frames():
            writer.write(frame.image, float((turn * length + frame.number) / source.facts.rate))
    writer.close()
    return out


def real_detector(name: str, size: int) -> TorchDetector:
    """Random weights: the time is the same."""
    torch.manual_seed(0)
    model = create_model[name](len(NAMES), pretrained=False)
    facts = DetectorFacts(name, NAMES, SizeRule(size), "cpu", source="random")
    return TorchDetector(model, facts, torch.device("cpu"))


def serial_detect(detector: Detector) -> Callable[[np.ndarray], Detections]:
    """One float image (3, H, W) at a time."""
    if isinstance(detector, Stub):
        return lambda image: detector.detect([image])[0]

    @torch.inference_mode()
    def detect(image: np.ndarray) -> Detections:
        return Detections.from_output(detector.model([torch.from_numpy(image)])[0]).where(slice(BOXES))

    return detect


def main() -> None:
    """Interleave all ways, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Frames a second of a whole video, ours against a serial loop.")
    parser.add_argument("--input", default="example_test_data/video_1.mp4")
    parser.add_argument("--times", type=int, default=3, help="play it so often")
    parser.add_argument("--imgsz", type=int, default=360)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a real detector too, with random weights on the CPU: fasterrcnn_nano")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    detectors: dict[str, Detector] = {
        "2 ms a call": Stub(options.imgsz, per_frame=False),
        "2 ms a frame": Stub(options.imgsz, per_frame=True),
    }
    if options.model:
        detectors[options.model] = real_detector(options.model, options.imgsz)
    with tempfile.TemporaryDirectory() as folder:
        path = long_video(Path(options.input), Path(folder) / "in.mp4", options.times)
        out = Path(folder) / "out.mp4"
        for name, detector in detectors.items():
            detect = serial_detect(detector)
            serial(path, out, options.imgsz, detect)
            pipelined(path, out, detector, CODECS[0], options.batch)
            rates: list[float] = []
            cpu: dict[str, list[float]] = {way: [] for way in ("serial", *CODECS)}  # ms a frame
            frames = open_video(str(path)).facts.length
            reports: dict[str, list[Report]] = {codec: [] for codec in CODECS}
            for _ in range(options.rounds):
                started = time.process_time()
                rates.append(serial(path, out, options.imgsz, detect))
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
                print(f"    {middle.words()}")


if __name__ == "__main__":
    main()
