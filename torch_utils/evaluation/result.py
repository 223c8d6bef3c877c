"""Result of an evaluation: COCO metrics with the detections they were computed from."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch_utils.evaluation.coco_eval import CocoMetrics, coco_metrics
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.labels.index import LabelIndex

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Metrics and detections of one pass over a split."""

    metrics: CocoMetrics
    detections: Mapping[int, Detections]  # image number in the index -> detections, in original pixels
    losses: Mapping[str, float] | None = None  # LOSS_TERMS, means over the images; None unless requested


def check_any_decoded(detections: Mapping[int, Detections], index: LabelIndex) -> None:
    """Raise UserError if `detections` is empty, which means that no image could be decoded."""
    if not detections:
        raise UserError(f"{index.folder}: none of the {len(index)} images can be decoded")


def timed_metrics(index: LabelIndex, detections: Mapping[int, Detections], title: str) -> CocoMetrics:
    """Compute COCO metrics and log the seconds it took, on a line that begins with `title`."""
    started = time.perf_counter()
    metrics = coco_metrics(index, detections)
    log.info("%s  evaluator_time: %.4f", title, time.perf_counter() - started)
    return metrics
