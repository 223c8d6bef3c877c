"""What an evaluation writes: numbers, curves, confusion matrix, worst images, and a page with all of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from torch_utils.evaluation.analysis import DetectionAnalysis
from torch_utils.evaluation.coco_eval import CocoMetrics
from torch_utils.evaluation.detection_analysis import analyse
from torch_utils.evaluation.eval_pictures import contact_sheet, error_picture, error_title
from torch_utils.evaluation.eval_plots import PLOTS
from torch_utils.evaluation.eval_report import EvalReport
from utils.detect.detections import Detections
from utils.files import write_atomically, write_text
from utils.labels.index import LabelIndex
from utils.labels.writers import write_coco

METRICS, REPORT, WORST_IMAGES = "metrics.json", "report.html", "worst_images.jpg"


def write_evaluation(
    folder: Path,
    index: LabelIndex,
    detections: Mapping[int, Detections],
    metrics: CocoMetrics,
    *,
    analysis: DetectionAnalysis | None = None,
    title: str = "Evaluation",
    info: Mapping[str, str] | None = None,
    numbers: Mapping[str, object] | None = None,
) -> DetectionAnalysis:
    """Write metrics.json, the PNG curves and the confusion matrix, worst_images.jpg and report.html.

    Any thread may call it. Each file is whole or not there, and those of an earlier call are replaced.

    Args:
        detections: image number in the index -> what was found there.
        metrics: of these detections.
        analysis: of these detections, where there is one already.
        title: of the page.
        facts: what was evaluated on what, for the page: name -> value.
        numbers: more entries for metrics.json.

    Raises:
        DataError: an image can no longer be read.
        OSError: a file cannot be written.
    """
    analysis = analysis or analyse(index, detections)
    content = {**metrics.as_dict(), **analysis.as_dict(), **(numbers or {})}
    write_text(folder / METRICS, json.dumps(content, indent=1))
    plots = {name: draw(analysis) for name, draw in PLOTS.items()}
    for name, data in plots.items():
        _write_bytes(folder / name, data)
    worst = [
        (error_title(index, image, errors), error_picture(index, image, errors))
        for image, errors in analysis.worst.items()
    ]
    if worst:
        _write_bytes(folder / WORST_IMAGES, contact_sheet(worst))
    else:
        (folder / WORST_IMAGES).unlink(missing_ok=True)
    report = EvalReport(title, info or {}, content, analysis, plots, worst)
    write_text(folder / REPORT, report.page())
    return analysis


def write_coco_results(path: Path, index: LabelIndex, detections: Mapping[int, Detections]) -> None:
    """Write detections as a COCO results file, and the ground truth that it belongs to beside it.

    pycocotools reads both (`COCO(truth_file(path))`, then `loadRes(path)`) and comes to the numbers of coco_metrics.
    Image ids are the images' numbers in the index from 1, category ids the classes' places in CLASSES.
    """
    rows = [
        {"image_id": image + 1, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image, found in sorted(detections.items())
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]
    counts = np.isin(index.image_of_box(), list(detections))  # an image that could not be decoded has nothing to find
    kept = np.bincount(index.image_of_box()[counts], minlength=len(index))
    truth = replace(
        index,
        offsets=np.concatenate([[0], np.cumsum(kept)]),
        boxes=index.boxes[counts],
        labels=index.labels[counts],
        ignored=index.ignored[counts],
    )
    write_coco(truth_file(path), truth)
    write_text(path, json.dumps(rows))


def truth_file(results: Path) -> Path:
    """The ground truth of a results file: results.json -> results_truth.json."""
    return results.with_name(f"{results.stem}_truth.json")


def _write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    write_atomically(path, lambda file: file.write(data))
