"""Write label files: the exact inverse (float32) of utils/labels/readers.py and utils/labels/coco_json.py."""

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from utils.files import write_text
from utils.labels.index import LabelIndex


def write_voc(
    path: Path,
    image_name: str,
    size: tuple[int, int],
    boxes: np.ndarray,
    names: Sequence[str],
    *,
    ignored: np.ndarray | None = None,
) -> None:
    """Write a Pascal VOC XML file.

    Args:
        image_name: file name of the image. Bytes that are not UTF-8 become "?", which XML requires.
        size: height and width of the image.
        boxes: (N, 4) x1 y1 x2 y2 in its pixels, more than one pixel wide and high: corners of one pixel are read back
            as a box without area, as tools write them.
        names: class of each box.
        ignored: (N,) bool, True for `difficult`; None for none.
    """
    root = ElementTree.Element("annotation")
    _add(root, filename=image_name.encode("utf-8", "replace").decode("utf-8"))
    _add(ElementTree.SubElement(root, "size"), width=size[1], height=size[0], depth=3)
    difficult = np.zeros(len(boxes), bool) if ignored is None else ignored
    for (x1, y1, x2, y2), name, flag in zip(boxes.astype(np.float64).tolist(), names, difficult, strict=True):
        entry = ElementTree.SubElement(root, "object")
        _add(entry, name=name, difficult=int(flag))
        _add(ElementTree.SubElement(entry, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode") + "\n")


def write_yolo(path: Path, size: tuple[int, int], boxes: np.ndarray, labels: np.ndarray) -> None:
    """Write a YOLO txt file.

    Args:
        size: height and width of the image.
        boxes: (N, 4) x1 y1 x2 y2 in its pixels.
        labels: (N,) int, index into CLASSES; the numbers in the file are one less, as they exclude the background.
    """
    corners = boxes.astype(np.float64).reshape(-1, 4) / (size[1], size[0], size[1], size[0])
    centers, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    rows = zip(labels.tolist(), np.hstack([centers, sides]).tolist(), strict=True)
    write_text(path, "".join(f"{label - 1} {' '.join(map(repr, numbers))}\n" for label, numbers in rows))


def write_coco(path: Path, index: LabelIndex) -> None:
    """Write COCO json (https://cocodataset.org/#format-data) of a split; ids start at 1, a category's is its label."""
    image_ids = index.image_of_box() + 1
    corners = index.boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    content = {
        "images": [
            {"id": i, "file_name": name, "height": height, "width": width}
            for i, (name, (height, width)) in enumerate(zip(index.files.names, index.sizes.tolist(), strict=True), 1)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(ignored)}
            for i, (image, label, box, area, ignored) in enumerate(
                zip(
                    image_ids.tolist(),
                    index.labels.tolist(),
                    np.hstack([corners[:, :2], sides]).tolist(),
                    sides.prod(1).tolist(),
                    index.ignored.tolist(),
                    strict=True,
                ),
                1,
            )
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": ""}
            for i, name in enumerate(index.classes)
            if i > 0 and name != "N/A"
        ],
    }
    write_text(path, json.dumps(content))


def _add(parent: ElementTree.Element, **children: object) -> None:
    for tag, value in children.items():
        ElementTree.SubElement(parent, tag).text = f"{value:.12g}" if isinstance(value, float) else str(value)
