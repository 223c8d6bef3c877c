"""An evaluation as one HTML page that needs nothing else: no network, no scripts, no other files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from torch_utils.evaluation.analysis import CORRECT, ERRORS, IGNORED, KINDS, DetectionAnalysis
from utils.text import counted
from utils.visualize.html import percent, table, text
from utils.visualize.pages import data_uri, figure, page, tiles

_STYLE = Path(__file__).with_suffix(".css")
_QUALITY = 82  # of the JPEGs
_MOST_CLASSES = 400  # rows of a table
_MOST_CONFUSIONS = 12
_MEANINGS = {  # of the kinds of errors, in the order of the table
    "missed": "ground truth that no detection of its class has found",
    "false": "nothing of the kind is there",
    "wrong class": "the place is right (IoU ≥ 0.5), the class is not",
    "poor box": "the class is right, the box is not (IoU from 0.1 to 0.5)",
    "double": "it is the second detection, or a later one, of the same object",
}


@dataclass(frozen=True)
class EvalReport:
    """What goes onto the page."""

    title: str
    info: Mapping[str, str]  # what was evaluated on what: name -> value
    metrics: Mapping[str, Any]  # the content of metrics.json
    analysis: DetectionAnalysis
    plots: Mapping[str, bytes]  # file name -> PNG
    worst: Sequence[tuple[str, np.ndarray]]  # title, (H, W, 3) uint8 RGB

    def page(self) -> str:
        """The HTML; with 12 images about 3 MB."""
        sections = {
            "numbers": ("COCO's numbers", self._numbers()),
            "classes": ("Classes", self._classes()),
            "curves": ("Curves", self._curves()),
            "confusion": ("Confusion of classes", self._confusion()),
            "errors": ("Kinds of errors", self._errors()),
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
            "F1 there": _number(at_best["f1"]),
            "precision there": _number(at_best["precision"]),
            "recall there": _number(at_best["recall"]),
        }
        info = table(["", ""], [[name, text(value)] for name, value in self.info.items()]) if self.info else ""
        return f'<section id="summary" aria-label="Summary">\n{tiles(numbers)}{info}</section>\n'

    def _numbers(self) -> str:
        rows = [[text(name), _number(value)] for name, value in self.metrics["stats"].items()]
        return table(["number", "value"], rows, kind="numbers")

    def _classes(self) -> str:
        analysis = self.analysis
        at_best = [analysis.at_threshold(curves) for curves in (analysis.precision, analysis.recall, analysis.f1)]
        order = sorted(range(len(analysis.classes)), key=lambda k: (not analysis.counted[k], self._ap(k)))
        rows = []
        for k in order[:_MOST_CLASSES]:
            of_class = self.metrics["classes"][k]
            numbers = [of_class["ap"], of_class["ap50"], of_class["ar"], *(float(v[k]) for v in at_best)]
            errors = [analysis.missed[k], *analysis.found[k, [*ERRORS[::-1]]]]
            rows.append([
                f'<span class="file">{text(analysis.classes[k], 80)}</span>', f"{analysis.boxes[k]:,}",
                *map(_number, numbers), _number(float(analysis.class_thresholds[k])), *(f"{n:,}" for n in errors),
            ])  # fmt: skip
        head = ["class", "boxes", "AP", "AP50", "AR", "precision", "recall", "F1", "own best threshold", "missed"]
        return (
            "<p>The lowest AP comes first. Precision, recall, F1 and the counts of errors are those at a score of "
            f"{analysis.threshold:.3f} and more.</p>"
            + table([*head, *(KINDS[kind] for kind in ERRORS[::-1])], rows, kind="numbers")
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
                ("f1_curve.png", "F1 over the score"),
                ("precision_curve.png", "precision over the score"),
                ("recall_curve.png", "recall over the score"),
            )
        )
        return f'<div class="plots">{figures}</div>'

    def _confusion(self) -> str:
        counts = self.analysis.confusion[1:, 1:].copy()
        np.fill_diagonal(counts, 0)
        most = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSIONS]
        pairs = [divmod(int(i), len(counts)) for i in most]
        rows = [
            [text(self.analysis.classes[i], 80), text(self.analysis.classes[j], 80), f"{counts[i, j]:,}"]
            for i, j in pairs
            if counts[i, j]
        ]
        listed = table(["is", "was found as", "times"], rows, kind="pairs")
        listed = listed if rows else "<p>No class was taken for another.</p>"
        return f"{figure(self.plots['confusion_matrix.png'], 'confusion matrix')}<h3>Most often</h3>{listed}"

    def _errors(self) -> str:
        analysis = self.analysis
        totals = dict(zip(KINDS, analysis.found.sum(0).tolist(), strict=True)) | {"missed": int(analysis.missed.sum())}
        detections = sum(totals[kind] for kind in KINDS if kind != KINDS[IGNORED])
        rows = []
        for kind, meaning in _MEANINGS.items():
            whole, what = (analysis.boxes.sum(), "boxes") if kind == "missed" else (detections, "detections")
            share = f"{percent(totals[kind], int(whole))} of the {what}" if whole else "&ndash;"
            rows.append([kind, meaning, f"{totals[kind]:,}", share])
        words = (
            f"<p>At a score of {analysis.threshold:.3f} and more: {counted(detections, 'detection')} for "
            f"{counted(int(analysis.boxes.sum()), 'box', 'boxes')}, {totals[KINDS[CORRECT]]:,} correct; "
            f"{totals[KINDS[IGNORED]]:,} more on boxes marked difficult or crowd, which do not count.</p>"
        )
        return words + table(["kind", "what it is", "count", "share"], rows, kind="errors")

    def _worst(self) -> str:
        if not self.worst:
            return '<p class="fine">No image has an error.</p>'
        figures = "".join(
            f'<figure><figcaption>{text(title)}</figcaption><img loading="lazy" src="{_jpeg(picture)}" '
            f'alt="{text(title)}" width="{picture.shape[1]}" height="{picture.shape[0]}"></figure>\n'
            for title, picture in self.worst
        )
        return f'<p>Left the ground truth, right what was found.</p><div class="worst">{figures}</div>'


def _jpeg(rgb: np.ndarray) -> str:
    data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return data_uri("jpeg", data)


def _number(value: float | None) -> str:
    return "&ndash;" if value is None or value != value or value == -1 else f"{value:.3f}"
