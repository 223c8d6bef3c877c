"""Streaming COCO JSON writer: entries are buffered on disk, so that long videos need no memory."""

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
    """Writer of the format of `write_coco_json`, one entry a line, buffered in temporary files until `close`.

    Args:
        path: the file that `close` writes atomically.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.path, self._class_names = path, class_names
        self._images, self._annotations = _temporary_file(path.parent), _temporary_file(path.parent)
        self._image_count = self._annotation_count = 0

    def add(self, name: str, height: int, width: int, detections: Detections, **info: Any) -> None:
        """Append one image; `info` is added to its COCO entry.

        Raises:
            OSError: writing fails, for example on a full disk.
        """
        self._image_count += 1
        entry = {"id": self._image_count, "file_name": name, "height": height, "width": width, **info}
        self._write(self._images, entry, is_first=self._image_count == 1)
        columns = (detections.boxes, detections.scores, detections.labels)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for (x1, y1, x2, y2), score, label in rows:
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
            OSError: writing fails.
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


def _temporary_file(folder: Path) -> IO[str]:
    """Open an anonymous file, deleted when the process ends."""
    return tempfile.TemporaryFile("w+", dir=folder)
