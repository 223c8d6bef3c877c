"""Self-contained HTML report of an evaluation: no network, no scripts, no other files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from torch_utils.evaluation.detection_analysis import (
    BACKGROUND,
    CORRECT,
    DUPLICATE,
    ERRORS,
    IGNORED,
    KINDS,
    POOR_LOCALIZATION,
    WRONG_CLASS,
    DetectionAnalysis,
)  # fmt: skip
from utils.text import counted
from utils.visualize.html import html_table, html_text, percent
from utils.visualize.pages import data_uri, figure, page, tiles

_STYLE = Path(__file__).with_suffix(".css")
_QUALITY = 82  # of the JPEGs
_MOST_CLASSES = 400  # rows of a table
_MOST_CONFUSIONS = 12
_MISSED = "missed"
_MEANINGS = {  # of the kinds of errors, in the order of the table
    _MISSED: "ground-truth box that no detection of its class matches",
    KINDS[BACKGROUND]: "false positive: no object of its class at IoU ≥ 0.1, none of another class at IoU ≥ 0.5",
    KINDS[WRONG_CLASS]: "correct position (IoU ≥ 0.5 with an object of another class)",
    KINDS[POOR_LOCALIZATION]: "correct class, but IoU only 0.1 to 0.5",
    KINDS[DUPLICATE]: "second or later detection of an object that is already matched",
}


@dataclass(frozen=True)
class EvalReport:
    """Content of the page."""

    title: str
    info: Mapping[str, str]  # name -> value, such as the model, its weights and the data
    metrics: Mapping[str, Any]  # the content of metrics.json
    analysis: DetectionAnalysis
    plots: Mapping[str, bytes]  # file name -> PNG
    worst: Sequence[tuple[str, np.ndarray]]  # title, (H, W, 3) uint8 RGB picture

    def page(self) -> str:
        """The HTML, about 3 MB with 12 images."""
        sections = {
            "numbers": ("COCO metrics", self._numbers()),
            "classes": ("Classes", self._classes()),
            "curves": ("Curves", self._curves()),
            "confusion": ("Confusion matrix", self._confusion()),
            "errors": ("Error types", self._errors()),
            "worst": ("Worst images", self._worst()),
        }
        return page(self.title, sections, summary=self._summary(), styles=[_STYLE])

    def _summary(self) -> str:
        stats, at_best = self.metrics["stats"], self.metrics["at_best_threshold"]
        first, second = list(stats.values())[:2]
        numbers = {
            "mAP, IoU 0.50:0.95": _number(first),
            "mAP, IoU 0.50": _number(second),
            "best threshold": _number(self.analysis.threshold),
            "F1 at best threshold": _number(at_best["f1"]),
            "precision at best threshold": _number(at_best["precision"]),
            "recall at best threshold": _number(at_best["recall"]),
        }
        info = (
            html_table(["", ""], [[name, html_text(value)] for name, value in self.info.items()]) if self.info else ""
        )
        return f'<section id="summary" aria-label="Summary">\n{tiles(numbers)}{info}</section>\n'

    def _numbers(self) -> str:
        rows = [[html_text(name), _number(value)] for name, value in self.metrics["stats"].items()]
        return html_table(["metric", "value"], rows, kind="numbers")

    def _classes(self) -> str:
        analysis = self.analysis
        at_best = [analysis.at_threshold(curves) for curves in (analysis.precision, analysis.recall, analysis.f1)]
        order = sorted(range(len(analysis.classes)), key=lambda k: (not analysis.has_boxes[k], self._ap(k)))
        rows = []
        for k in order[:_MOST_CLASSES]:
            metrics = self.metrics["classes"][k]
            numbers = [metrics["ap"], metrics["ap50"], metrics["ar"], *(float(v[k]) for v in at_best)]
            errors = [analysis.missed[k], *analysis.detection_counts[k, [*ERRORS[::-1]]]]
            rows.append([
                f'<span class="file">{html_text(analysis.classes[k], 80)}</span>', f"{analysis.box_counts[k]:,}",
                *map(_number, numbers), _number(float(analysis.class_thresholds[k])), *(f"{n:,}" for n in errors),
            ])  # fmt: skip
        head = [
            "class",
            "boxes",
            "AP",
            "AP50",
            "AR",
            "precision",
            "recall",
            "F1",
            "best threshold",
            _MISSED,
        ]
        return (
            "<p>Sorted by AP, lowest first. Precision, recall, F1 and the numbers of errors are those at the best "
            f"threshold, {analysis.threshold:.3f}.</p>"
            + html_table([*head, *(KINDS[kind] for kind in ERRORS[::-1])], rows, kind="numbers")
            + (f"<p>and {len(order) - _MOST_CLASSES:,} more</p>" if len(order) > _MOST_CLASSES else "")
        )

    def _ap(self, k: int) -> float:
        ap = self.metrics["classes"][k]["ap"]
        return -1.0 if ap is None else ap

    def _curves(self) -> str:
        figures = "".join(
            figure(self.plots[name], alt, wide=name == "pr_curve.png")
            for name, alt in (
                ("pr_curve.png", "precision over recall"),
                ("f1_curve.png", "F1 over the score threshold"),
                ("precision_curve.png", "precision over the score threshold"),
                ("recall_curve.png", "recall over the score threshold"),
            )
        )
        return f'<div class="plots">{figures}</div>'

    def _confusion(self) -> str:
        counts = self.analysis.confusion[1:, 1:].copy()
        np.fill_diagonal(counts, 0)
        most = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSIONS]
        pairs = [divmod(int(i), len(counts)) for i in most]
        rows = [
            [html_text(self.analysis.classes[i], 80), html_text(self.analysis.classes[j], 80), f"{counts[i, j]:,}"]
            for i, j in pairs
            if counts[i, j]
        ]
        pairs_table = html_table(["ground truth", "detected as", "count"], rows, kind="pairs")
        pairs_table = pairs_table if rows else "<p>No two classes were confused.</p>"
        picture = figure(self.plots["confusion_matrix.png"], "confusion matrix")
        return f"{picture}<h3>Most frequent confusions</h3>{pairs_table}"

    def _errors(self) -> str:
        analysis = self.analysis
        totals = dict(zip(KINDS, analysis.detection_counts.sum(0).tolist(), strict=True))
        detections = sum(totals.values()) - totals[KINDS[IGNORED]]
        boxes, missed = int(analysis.box_counts.sum()), int(analysis.missed.sum())
        rows = []
        for kind, meaning in _MEANINGS.items():
            count, whole, unit = (
                (missed, boxes, "boxes") if kind == _MISSED else (totals[kind], detections, "detections")
            )
            share = f"{percent(count, whole)} of the {unit}" if whole else "&ndash;"
            rows.append([kind, meaning, f"{count:,}", share])
        summary = (
            f"<p>At the best threshold, {analysis.threshold:.3f}: {counted(detections, 'detection')} of "
            f"{counted(boxes, 'ground-truth box', 'ground-truth boxes')}, {totals[KINDS[CORRECT]]:,} correct. "
            f"Not counted: {counted(totals[KINDS[IGNORED]], 'detection')} of boxes marked difficult or crowd.</p>"
        )
        return summary + html_table(["error", "meaning", "count", "share"], rows, kind="errors")

    def _worst(self) -> str:
        if not self.worst:
            return '<p class="fine">No image has an error.</p>'
        figures = "".join(
            f'<figure><figcaption>{html_text(title)}</figcaption><img loading="lazy" src="{_jpeg(picture)}" '
            f'alt="{html_text(title)}" width="{picture.shape[1]}" height="{picture.shape[0]}"></figure>\n'
            for title, picture in self.worst
        )
        return f'<p>Left: ground truth. Right: detections.</p><div class="worst">{figures}</div>'


def _jpeg(rgb: np.ndarray) -> str:
    data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return data_uri("jpeg", data)


def _number(value: float | None) -> str:
    return "&ndash;" if value is None or value != value or value == -1 else f"{value:.3f}"
