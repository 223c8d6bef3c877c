"""The twelve COCO numbers and those of every class (https://cocodataset.org/#detection-eval).

faster-coco-eval counts, in C++; tests compare it with pycocotools to the last digit.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from utils.detections import Detections
from utils.label_index import LabelIndex

_ROWS = (  # what COCO calls it, IoU, area, largest number of detections; in the order of the twelve numbers
    ("Average Precision", "(AP)", "0.50:0.95", "all", 100),
    ("Average Precision", "(AP)", "0.50", "all", 100),
    ("Average Precision", "(AP)", "0.75", "all", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "small", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "medium", 100),
    ("Average Precision", "(AP)", "0.50:0.95", "large", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 1),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 10),
    ("Average Recall", "(AR)", "0.50:0.95", "all", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "small", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "medium", 100),
    ("Average Recall", "(AR)", "0.50:0.95", "large", 100),
)


@dataclass(frozen=True)
class ClassMetrics:
    """One class over the whole split; NaN where it has no ground truth."""

    name: str
    boxes: int  # of the ground truth, without ignored ones
    ap: float  # IoU 0.50:0.95
    ap50: float
    ar: float  # at most 100 detections an image


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's numbers, in original pixels. A number that nothing defines (no ground truth) is -1, as COCO has it."""

    stats: tuple[float, ...]  # the twelve, in COCO's order
    per_class: tuple[ClassMetrics, ...]

    @property
    def ap(self) -> float:
        """mAP, IoU 0.50:0.95."""
        return self.stats[0]

    @property
    def ap50(self) -> float:
        """mAP at IoU 0.50."""
        return self.stats[1]

    def table(self) -> str:
        """The twelve lines that COCO prints."""
        lines = (
            f" {title:<18} {short} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {value:0.3f}"
            for (title, short, iou, area, most), value in zip(_ROWS, self.stats, strict=True)
        )
        return "\n".join(lines)

    def class_table(self) -> str:
        """One line a class."""
        width = max(len("class"), *(len(c.name) for c in self.per_class))
        rule = "-" * (width + 45)
        head = f"{'class':<{width}}  {'boxes':>8}  {'AP':>9}  {'AP50':>9}  {'AR':>9}"
        rows = (f"{c.name:<{width}}  {c.boxes:>8}  {c.ap:9.3f}  {c.ap50:9.3f}  {c.ar:9.3f}" for c in self.per_class)
        return "\n".join([rule, head, rule, *rows, rule])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        names = [f"{short[1:3]} IoU={iou} area={area} maxDets={most}" for _, short, iou, area, most in _ROWS]
        classes = [{k: None if v != v else v for k, v in asdict(c).items()} for c in self.per_class]
        return {"stats": dict(zip(names, self.stats, strict=True)), "classes": classes}


def coco_metrics(index: LabelIndex, detections: Mapping[int, Detections]) -> CocoMetrics:
    """Compare detections with the ground truth of an index.

    Args:
        index: ground truth; ignored boxes are COCO's iscrowd.
        detections: image number in the index -> what was found there; an image that is absent does not count.
    """
    categories = [{"id": label, "name": name} for label, name in enumerate(index.classes) if label > 0]
    truth = COCO(_ground_truth(index, detections.keys(), categories))
    evaluator = COCOeval_faster(truth, truth.loadRes(_rows(detections)), iouType="bbox", print_function=_silent)
    evaluator.run()
    precision, recall = (
        evaluator.eval["precision"],
        evaluator.eval["recall"],
    )  # (IoU, R, class, area, dets), (I, K, A, D)
    counted = ~index.ignored & np.isin(index.image_of_box(), list(detections))
    counts = np.bincount(index.labels[counted], minlength=len(index.classes))
    per_class = tuple(
        ClassMetrics(
            name=category["name"],
            boxes=int(counts[category["id"]]),
            ap=_mean(precision[:, :, k, 0, -1]),
            ap50=_mean(precision[0, :, k, 0, -1]),
            ar=_mean(recall[:, k, 0, -1]),
        )
        for k, category in enumerate(categories)
    )
    return CocoMetrics(tuple(float(v) for v in evaluator.all_stats[:12]), per_class)


def _ground_truth(index: LabelIndex, images: Collection[int], categories: list[dict[str, Any]]) -> dict[str, Any]:
    sides = index.boxes[:, 2:].astype(np.float64) - index.boxes[:, :2]
    annotations = [
        {
            "id": number,  # from 1: COCO's matching takes 0 for "none"
            "image_id": image,
            "category_id": label,
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": ignored,
        }
        for number, (image, label, (x, y), (width, height), ignored) in enumerate(
            zip(
                index.image_of_box().tolist(),
                index.labels.tolist(),
                index.boxes[:, :2].tolist(),
                sides.tolist(),
                index.ignored.astype(int).tolist(),
                strict=True,
            ),
            start=1,
        )
        if image in images
    ]
    sizes = [
        {"id": i, "height": height, "width": width}
        for i, (height, width) in enumerate(index.sizes.tolist())
        if i in images
    ]
    return {"images": sizes, "annotations": annotations, "categories": categories}


def _rows(detections: Mapping[int, Detections]) -> np.ndarray:
    """(N, 7) float64: image, x, y, width, height, score, label."""
    tables = [
        np.column_stack([np.full(len(d), image), d.boxes[:, :2], d.boxes[:, 2:] - d.boxes[:, :2], d.scores, d.labels])
        for image, d in sorted(detections.items())
    ]
    return np.concatenate(tables) if tables else np.empty((0, 7))


def _mean(values: np.ndarray) -> float:
    """COCO marks what is undefined with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else float("nan")


def _silent(*_: object) -> None:
    """Takes what the library would print."""
