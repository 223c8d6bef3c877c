"""Results of detection in images: pictures, tables, label files and crops."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from utils.cli.options import VOC, YOLO, ResultKinds
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.images.image_files import write_image
from utils.inference.result_files import DetectionRecord, write_boxes_csv, write_coco_json
from utils.labels.writers import write_voc, write_yolo
from utils.visualize.drawing import draw_detections

_LABELS = {YOLO: ("labels_yolo", ".txt"), VOC: ("labels_voc", ".xml")}  # format -> folder, suffix
_CROPS = "crops"
_UNSAFE = re.compile(r"[^\w .-]|^\.+|[. ]+$")  # characters that a folder name must not contain on some system


class ImageResults:
    """Writer of the results folder. `write` is thread-safe for different images."""

    def __init__(self, folder: Path, kinds: ResultKinds, class_names: Sequence[str], names: Sequence[str]) -> None:
        """
        Args:
            names: file names of all pictures, relative to the folder, in the order of the tables.

        Raises:
            UserError: two images would share a label file.
        """
        self.folder = folder
        self.kinds = kinds
        self.class_names = class_names
        self.names = names
        self._detections: dict[str, tuple[int, int, Detections]] = {}
        self._folders = {folder}
        self._lock = Lock()
        if kinds.labels:
            _check_stems(names)

    def write(self, name: str, image: np.ndarray, detections: Detections) -> np.ndarray:
        """Write the results of one image; return the picture with boxes, (H, W, 3) uint8 RGB.

        Raises:
            OSError: a file cannot be written.
        """
        picture = draw_detections(image, detections, self.class_names, show_labels=self.kinds.show_labels)
        if self.kinds.pictures:
            write_image(self._path(name), picture)
        for label_format in self.kinds.labels:
            self._write_labels(label_format, name, image.shape[:2], detections)
        if self.kinds.crops:
            self._write_crops(name, image, detections)
        self._detections[name] = (*image.shape[:2], detections)
        return picture

    def close(self) -> None:
        """Write the tables of the images written so far."""
        record = DetectionRecord(self.class_names)
        for name in self.names:
            if name in self._detections:
                record.add(name, *self._detections[name])
        if self.kinds.table:
            write_boxes_csv(self.folder / "boxes.csv", record)
        if self.kinds.json:
            write_coco_json(self.folder / "log.json", record)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of images and detections so far."""
        return len(self._detections), sum(len(detections) for *_, detections in self._detections.values())

    def _write_labels(self, label_format: str, name: str, size: tuple[int, int], detections: Detections) -> None:
        """Write a label file. Boxes of at most 1 px are left out: not every format can store them."""
        folder, suffix = _LABELS[label_format]
        detections = detections.where((detections.boxes[:, 2:] - detections.boxes[:, :2] > 1).all(1))
        path = self._path(os.path.join(folder, os.path.splitext(name)[0] + suffix))
        if label_format == YOLO:
            write_yolo(path, size, detections.boxes, detections.labels)
        else:
            names = [self.class_names[label] for label in detections.labels]
            write_voc(path, os.path.basename(name), size, detections.boxes, names)

    def _write_crops(self, name: str, image: np.ndarray, detections: Detections) -> None:
        height, width = image.shape[:2]
        stem, suffix = os.path.splitext(name)
        for number, (box, label) in enumerate(zip(detections.boxes, detections.labels, strict=True), 1):
            x1, y1 = np.floor(box[:2]).astype(int).clip(0)
            x2, y2 = np.ceil(box[2:]).astype(int).clip(max=(width, height))
            if x1 < x2 and y1 < y2:
                class_folder = _UNSAFE.sub("_", self.class_names[label]) or "_"
                write_image(
                    self._path(os.path.join(_CROPS, class_folder, f"{stem}_{number}{suffix}")), image[y1:y2, x1:x2]
                )

    def _path(self, name: str) -> Path:
        """Return the path of a result, creating its folder."""
        path = self.folder / name
        with self._lock:
            if path.parent not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(path.parent)
        return path


def _check_stems(names: Sequence[str]) -> None:
    owners: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0].casefold()
        if stem in owners:
            raise UserError(f"{owners[stem]} and {name} would have label files of the same name: rename one of them")
        owners[stem] = name
