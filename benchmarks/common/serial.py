"""The predecessor's loop over images, and the detectors that both sides of a comparison use."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import nn

from models.create_fasterrcnn_model import create_model
from torch_utils.training.precision import Precision
from utils.detect.detections import Detections
from utils.detect.detector import BatchDetector, Detector, DetectorInfo
from utils.detect.torch_detector import TorchDetector
from utils.loading.size_rule import SizeRule
from utils.visualize.drawing import class_color

NAMES = ("__background__", *(f"class {i}" for i in range(1, 6)))
_BOXES = 20


class Stub(BatchDetector):
    """Detector that sleeps 2 ms and always returns the same boxes; it prepares images as every detector does."""

    def __init__(self, size: int, *, per_image: bool) -> None:
        super().__init__(DetectorInfo("stub", NAMES, SizeRule(size), "nowhere", source="none"))
        self._per_image = per_image
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 250, (_BOXES, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 90, (_BOXES, 2))], 1).astype(np.float32)
        self._detections = Detections(boxes, rng.uniform(0.3, 1, _BOXES).astype(np.float32), rng.integers(1, 6, _BOXES))

    def detect(self, prepared: Sequence[object]) -> list[Detections]:
        """See Detector."""
        time.sleep(0.002 * (len(prepared) if self._per_image else 1))
        return [self._detections] * len(prepared)

    def detect_batch(self, batch: object) -> list[Detections]:
        """Unused."""
        raise NotImplementedError


def detectors(size: int, model: str | None) -> dict[str, Detector]:
    """Make stub detectors, and a real one with random weights if a model is named."""
    detector_of: dict[str, Detector] = {
        "2 ms a call": Stub(size, per_image=False),
        "2 ms an image": Stub(size, per_image=True),
    }
    if model:
        torch.manual_seed(0)
        info = DetectorInfo(model, NAMES, SizeRule(size), "cpu", source="random")
        detector_of[model] = TorchDetector(create_model[model](len(NAMES), pretrained=False), info, torch.device("cpu"))
    return detector_of


def decoded(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Yield the frames of a video, BGR (H, W, 3) uint8."""
    while True:
        has_frame, bgr = capture.read()
        if not has_frame:
            return
        yield bgr


def detected(
    pictures: Iterable[np.ndarray], detect: Callable[[np.ndarray], Detections], rule: SizeRule
) -> Iterator[tuple[np.ndarray, Detections]]:
    """Yield BGR images (H, W, 3) uint8, and the detections in each as floats (3, h, w) resized by the rule.

    One loop, like the predecessor's: a function call per image would free its memory each time and be slower.
    """
    for bgr in pictures:
        height, width = rule.network_size(*bgr.shape[:2])
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.float32)
        image = cv2.resize(rgb, (width, height)) / 255.0
        yield bgr, detect(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))


def detected_and_drawn(pictures: Iterable[np.ndarray], detector: Detector, size: int) -> Iterator[np.ndarray]:
    """Yield BGR images (H, W, 3) uint8 with boxes drawn in; detection is at this shorter side."""
    for bgr, detections in detected(pictures, _detect_one(detector), SizeRule(size)):
        _draw(bgr, detections)
        yield bgr


@torch.inference_mode()
def detect_one(image: np.ndarray, model: nn.Module, precision: Precision) -> Detections:
    """Detect in one float image (3, H, W) with a torchvision detector."""
    with precision.autocast():
        return Detections.from_output(model([torch.from_numpy(image).to(precision.device)])[0])


def _detect_one(detector: Detector) -> Callable[[np.ndarray], Detections]:
    """Function that detects in one float image (3, H, W)."""
    if isinstance(detector, Stub):
        return lambda image: detector.detect([image])[0]
    precision = Precision(detector.device)
    return lambda image: detect_one(image, detector.model, precision).where(slice(_BOXES))


def _draw(bgr: np.ndarray, detections: Detections) -> None:
    for box, label, score in zip(detections.boxes, detections.labels, detections.scores, strict=True):
        x1, y1, x2, y2 = (int(v) for v in box)
        color = class_color(int(label))
        cv2.rectangle(bgr, (x1, y1), (x2, y2), color, 2, cv2.LINE_AA)
        text = f"{NAMES[label]} {score:.2f}"
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        cv2.rectangle(bgr, (x1, y1 - h - 3), (x1 + w, y1), color, -1, cv2.LINE_AA)
        cv2.putText(bgr, text, (x1, y1 - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
