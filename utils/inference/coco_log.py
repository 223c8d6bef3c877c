"""COCO json of a video, written while it goes on."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, BinaryIO

from utils.detect.detections import Detections
from utils.files import add_path_to_errors, write_atomically


class CocoLog:
    """Detections of many images in the form of `write_coco_json`, a line each, kept on the disk until `close`.

    Args:
        path: the file that `close` makes, whole or not at all.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.path, self._class_names = path, class_names
        self._images, self._annotations = _part(path.parent), _part(path.parent)
        self._image_count = self._annotation_count = 0

    def add(self, name: str, height: int, width: int, found: Detections, **info: Any) -> None:
        """Append one image, with `facts` beside COCO's own.

        Raises:
            OSError: the disk does not take it.
        """
        self._image_count += 1
        entry = {"id": self._image_count, "file_name": name, "height": height, "width": width, **info}
        self._write(self._images, entry, is_first=self._image_count == 1)
        boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True):
            self._annotation_count += 1
            entry = {
                "id": self._annotation_count,
                "image_id": self._image_count,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "score": score,
            }
            self._write(self._annotations, entry, is_first=self._annotation_count == 1)

    def close(self) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be.
        """
        names = enumerate(self._class_names)
        categories = [{"id": i, "name": name, "supercategory": ""} for i, name in names if i > 0 and name != "N/A"]

        def write(file: BinaryIO) -> None:
            for start, part in (('{"images": [', self._images), ('\n], "annotations": [', self._annotations)):
                file.write(start.encode())
                part.flush()
                part.seek(0)
                shutil.copyfileobj(part.buffer, file)
            file.write(f'\n], "categories": {json.dumps(categories)}}}\n'.encode())

        with add_path_to_errors(self.path), closing(self._images), closing(self._annotations):
            write_atomically(self.path, write)

    def _write(self, file: IO[str], entry: dict[str, Any], *, is_first: bool) -> None:
        with add_path_to_errors(self.path):
            file.write(("\n" if is_first else ",\n") + json.dumps(entry))


def _part(folder: Path) -> IO[str]:
    """A file without a name, which ends with the process."""
    return tempfile.TemporaryFile("w+", dir=folder)
