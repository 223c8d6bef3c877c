"""Detection tables as CSV and COCO JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.detect.detections import Detections
from utils.files import write_text
from utils.inference.coco_log import CocoLog

_CSV_HEADER = ("image", "label", "xmin", "xmax", "ymin", "ymax", "width", "height", "area")


@dataclass
class DetectionRecord:
    """Detections of many images, in order, for the writers below."""

    class_names: Sequence[str]
    images: list[tuple[str, int, int, Detections]] = field(default_factory=list)  # name, height, width, detections

    def add(self, name: str, height: int, width: int, detections: Detections) -> None:
        """Append one image."""
        self.images.append((name, height, width, detections))


def write_boxes_csv(path: Path, record: DetectionRecord) -> None:
    """Write one row per box, in original pixels."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_CSV_HEADER)
    for name, _, _, detections in record.images:
        for box, label in zip(detections.boxes.astype(float), detections.labels, strict=True):
            x1, y1, x2, y2 = box
            numbers = (x1, x2, y1, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1))
            rows.writerow([name, record.class_names[label], *(f"{n:.2f}" for n in numbers)])
    write_text(path, text.getvalue())


def write_coco_json(path: Path, record: DetectionRecord) -> None:
    """Write COCO's data format (https://cocodataset.org/#format-data), with a score in each annotation.

    Image and annotation ids count from 1; a category's id is its index among the class names.
    """
    log = CocoLog(path, record.class_names)
    for name, height, width, detections in record.images:
        log.add(name, height, width, detections)
    log.close()
