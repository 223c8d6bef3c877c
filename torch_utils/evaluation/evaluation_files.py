"""Output files of an evaluation: metrics, plots, worst images, HTML report, COCO results."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from torch_utils.evaluation.coco_eval import CocoMetrics
from torch_utils.evaluation.detection_analysis import DetectionAnalysis, analyze_detections
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
    """Write metrics.json, the PNG curves and confusion matrix, worst_images.jpg and report.html.

    Safe to call from any thread. Each file is written atomically and replaces that of an earlier call.

    Args:
        detections: image number in the index -> detections.
        metrics: COCO metrics of these detections.
        analysis: analysis of these detections; None to compute it.
        title: of the page.
        info: name -> value for the page, such as the model, its weights and the data.
        numbers: additional entries for metrics.json.

    Returns:
        The analysis.

    Raises:
        DataError: an image can no longer be read.
        OSError: a file cannot be written.
    """
    analysis = analysis or analyze_detections(index, detections)
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
    """Write detections as a COCO results file, and the matching ground truth beside it.

    pycocotools reads both (`COCO(ground_truth_file(path))`, then `loadRes(path)`) and computes the numbers of
    coco_metrics. Image ids are image numbers in the index + 1; category ids are positions in CLASSES. The ground truth
    has no boxes of images without an entry in `detections`, which could not be decoded.
    """
    rows = [
        {"image_id": image + 1, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image, in_image in sorted(detections.items())
        for (x1, y1, x2, y2), label, score in zip(
            in_image.boxes.tolist(), in_image.labels.tolist(), in_image.scores.tolist(), strict=True
        )
    ]
    evaluated = np.isin(index.image_of_box(), list(detections))
    counts = np.bincount(index.image_of_box()[evaluated], minlength=len(index))
    truth = replace(
        index,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=index.boxes[evaluated],
        labels=index.labels[evaluated],
        ignored=index.ignored[evaluated],
    )
    write_coco(ground_truth_file(path), truth)
    write_text(path, json.dumps(rows))


def ground_truth_file(results: Path) -> Path:
    """Path of a results file's ground truth: results.json -> results_truth.json."""
    return results.with_name(f"{results.stem}_truth.json")


def _write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda file: file.write(data))
