"""Boxes to label files: the inverse of utils/label_readers.py, to 1e-7 px."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from utils.files import write_text


def write_voc(path: Path, image_name: str, size: tuple[int, int], boxes: np.ndarray, names: Sequence[str]) -> None:
    """One Pascal VOC XML file.

    Args:
        image_name: file name of the image. Bytes of it that are not UTF-8 become "?", as XML knows no others.
        size: its height and width.
        boxes: (N, 4) x1 y1 x2 y2 in its pixels, more than one pixel wide and high: VOC's inclusive corners of one
            pixel are what tools write for a box without area, and are read as that.
        names: class of each box.
    """
    root = ElementTree.Element("annotation")
    _add(root, filename=image_name.encode("utf-8", "replace").decode("utf-8"))
    _add(ElementTree.SubElement(root, "size"), width=size[1], height=size[0], depth=3)
    for (x1, y1, x2, y2), name in zip(boxes.astype(np.float64).tolist(), names, strict=True):
        thing = ElementTree.SubElement(root, "object")
        _add(thing, name=name, difficult=0)
        _add(ElementTree.SubElement(thing, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode") + "\n")


def _add(parent: ElementTree.Element, **children: object) -> None:
    for tag, value in children.items():
        ElementTree.SubElement(parent, tag).text = f"{value:.10g}" if isinstance(value, float) else str(value)
