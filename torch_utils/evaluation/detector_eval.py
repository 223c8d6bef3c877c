"""Evaluation of any detector (PyTorch, ONNX, sliced) through the interface of utils/detect/detector.py."""

import logging
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from torch_utils.evaluation.result import Evaluation, check_any_decoded, timed_metrics
from utils.detect.detections import Detections
from utils.detect.detector import Detector
from utils.images.image_files import DamagedImageError
from utils.labels.index import LabelIndex
from utils.machine import cores, explain_out_of_memory
from utils.prefetch import prefetched
from utils.progress import StepMeter

_AHEAD = 2  # batches that threads prepare during detection
_TITLE = "Test:"
log = logging.getLogger(__name__)


class _Prepared(NamedTuple):
    number: int  # of the image in the index
    image: Any  # output of Detector.prepare; None if the image cannot be decoded


class _Batches:
    """Prepared images of an index, in its order, in batches of `size`.

    Attributes:
        data_wait_seconds: time that iterations have waited for prepared images.
    """

    def __init__(self, detector: Detector, index: LabelIndex, size: int, threads: int) -> None:
        self._detector, self._index, self._size, self._threads = detector, index, size, threads
        self.data_wait_seconds = 0.0

    def __len__(self) -> int:
        return -(-len(self._index) // self._size)

    def __iter__(self) -> Iterator[list[_Prepared]]:
        numbers = range(len(self._index))
        prepared = prefetched(self._load, numbers, ahead=_AHEAD * self._size, threads=self._threads)
        for _ in range(len(self)):
            started = time.perf_counter()
            batch = list(islice(prepared, self._size))
            self.data_wait_seconds += time.perf_counter() - started
            yield batch

    def _load(self, number: int) -> _Prepared:
        try:
            return _Prepared(number, self._detector.prepare(self._index.pixels(number)))
        except DamagedImageError as error:
            log.warning("%s", error)
            return _Prepared(number, None)


def evaluate_detector(
    detector: Detector, index: LabelIndex, *, batch_size: int, workers: int, new_labels: np.ndarray | None = None
) -> Evaluation:
    """Run a detector on every image of an index and compute COCO metrics, in one process.

    `evaluate` of torch_utils/engine.py does the same for a network and batches of a loader.

    Args:
        batch_size: images per call of the detector.
        workers: threads that decode and prepare images; at most one per core is used.
        new_labels: detector's label -> index's label, negative to drop it; None if they are the same.

    Raises:
        UserError: no image can be decoded.
    """
    meter = StepMeter(_TITLE, _Batches(detector, index, batch_size, max(1, min(workers, cores()))))
    detections: dict[int, Detections] = {}
    model_time = 0.0
    for batch in meter:
        started = time.perf_counter()
        decoded = [prepared for prepared in batch if prepared.image is not None]
        with explain_out_of_memory(f"evaluation, step {meter.step}", "lower --batch or --imgsz"):
            outputs = detector.detect([prepared.image for prepared in decoded]) if decoded else []
        for prepared, output in zip(decoded, outputs, strict=True):
            detections[prepared.number] = output if new_labels is None else output.relabeled(new_labels)
        model_time += time.perf_counter() - started
        if meter.due():
            meter.show({"model_time": f"{model_time / (meter.step + 1):.4f}"})
    check_any_decoded(detections, index)
    metrics = timed_metrics(index, detections, _TITLE)
    log.info("IoU metric: bbox\n%s", metrics.table())
    return Evaluation(metrics, detections)
