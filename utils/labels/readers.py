"""Read label files of one image each. A reader turns one file into a LabelFile; READERS lists them.

Coordinates follow the convention of utils/labels/boxes.py. A row that cannot be parsed becomes a note with its line
number; a file that cannot be parsed at all raises DataError.
"""

import codecs
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from utils.errors import DataError
from utils.files import file_size
from utils.text import printable

_MAX_LABEL_BYTES = 16 << 20  # 100,000 boxes are 20 MB of XML
_MAX_NOTES = 10_000  # invalid entries more than boxes: with more, the file is not a label file
MAX_SIDE = 1_000_000  # px; a larger number is damaged
_MAX_EXCERPT = 60  # characters of a name that a message quotes
_MAX_ERROR = 200  # characters of another library's message
_DECLARED = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)")  # XML 1.0, section 4.3.3
# declared encoding -> its superset, which tools write under that name
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
UNKNOWN = -1  # label of a class that the data YAML does not have


def excerpt(text: str, limit: int = _MAX_EXCERPT) -> str:
    """Shorten text of a file for a message: one line, without control characters."""
    text = " ".join(text[: 2 * limit].split())
    short = text if len(text) <= limit else f"{text[:limit]}..."
    return printable(short)


@dataclass
class LabelFile:
    """Content of one label file; the lists run over its boxes."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # index into CLASSES, or UNKNOWN
    ignored: list[bool] = field(default_factory=list)  # VOC difficult: neither trained on nor counted as missed
    size: tuple[int, int] | None = None  # height and width that the file claims for its image
    unknown: list[str] = field(default_factory=list)  # class of every UNKNOWN box, as written
    notes: list[str] = field(default_factory=list)  # what was skipped, with its location

    def add(self, box: tuple[float, float, float, float], label: int, *, ignored: bool = False) -> None:
        """Append one box."""
        self.boxes.append(box)
        self.labels.append(label)
        self.ignored.append(ignored)


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses DOCTYPE and with it entities, whose expansion can fill the memory. Labeling tools write none."""

    def doctype(self, name: str, *_: object) -> None:
        raise DataError(f"has a DOCTYPE ({excerpt(name)}), which a label file does not need: remove it")


def read_voc(path: Path, image_size: tuple[int, int], label_of: Mapping[str, int]) -> LabelFile:
    """Read a Pascal VOC XML file (VOC 2012 development kit, section 8.1): corners 1-based, inclusive.

    A box whose corners coincide is read as one without area, though VOC defines it as one pixel wide.
    """
    del image_size  # VOC boxes are in pixels
    root = _parse_xml(path)
    labels = LabelFile()
    labels.size = _voc_size(root, labels.notes)
    for number, entry in enumerate(root.iter("object"), 1):
        name = (entry.findtext("name") or "").strip()
        where = f"object {number}" + (f" ({excerpt(name)})" if name else "")
        if not name:
            _drop(path, labels, f"{where} has no name")
            continue
        try:
            corners = [float(entry.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError:
            _drop(path, labels, f"{where} has no bndbox of four numbers")
            continue
        label = label_of.get(name, UNKNOWN)
        if label == UNKNOWN:
            labels.unknown.append(f"'{excerpt(name)}'")
        (x1, x2), (y1, y2) = _from_voc(corners[0], corners[2]), _from_voc(corners[1], corners[3])
        labels.add((x1, y1, x2, y2), label, ignored=entry.findtext("difficult", "").strip() == "1")
    if not labels.boxes and not labels.notes and root.tag != "annotation":
        raise DataError(f"{path}: starts with <{excerpt(root.tag)}>, expected Pascal VOC's <annotation>: is it VOC?")
    return labels


def read_yolo(path: Path, image_size: tuple[int, int], label_of: Mapping[str, int]) -> LabelFile:
    """Read a YOLO txt file: a row per box, `class cx cy w h` in fractions of the image; class k is CLASSES[k + 1].

    A polygon of three or more points (`class x1 y1 x2 y2 x3 y3 ...`) becomes its bounding box. A sixth number is a
    confidence and is ignored.
    """
    height, width = image_size
    last_class = max(label_of.values(), default=0)  # not len(label_of): COCO's 91 names have N/A many times
    labels = LabelFile()
    for number, row in enumerate(_read_text(path).splitlines(), 1):
        fields = row.split()
        if not fields:
            continue
        try:
            class_number, *values = map(float, fields)
        except ValueError:
            _drop(path, labels, f"line {number} is not all numbers")
            continue
        if len(values) == 5:
            labels.notes.append(f"line {number} has a confidence, which is left out")
            values = values[:4]
        if not class_number.is_integer() or class_number < 0:
            _drop(path, labels, f"line {number} has class {excerpt(fields[0])}, which is no class number")
        elif len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0):
            known = class_number < last_class
            if not known:
                labels.unknown.append(f"class {class_number:.15g}")
            x1, y1, x2, y2 = _from_polygon(values) if len(values) > 4 else _from_center(*values)
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            labels.add(box, int(class_number) + 1 if known else UNKNOWN)
        else:
            _drop(path, labels, f"line {number} has {len(fields)} numbers, expected 5")
    return labels


@dataclass(frozen=True)
class Reader:
    """File suffix and reader of a --label-type. `read` takes path, image (height, width) and name -> label."""

    suffix: str
    read: Callable[[Path, tuple[int, int], Mapping[str, int]], LabelFile]


READERS: Mapping[str, Reader] = {"pascal_voc": Reader(".xml", read_voc), "yolo": Reader(".txt", read_yolo)}


def _drop(path: Path, labels: LabelFile, entry: str) -> None:
    """Note an invalid entry; DataError if nearly all are invalid."""
    if len(labels.notes) - len(labels.boxes) >= _MAX_NOTES:
        first = labels.notes[0].removesuffix(", dropped")
        raise DataError(f"{path}: {first}, and so on {_MAX_NOTES:,} times: this is no label file: repair or remove it")
    labels.notes.append(f"{entry}, dropped")


def _read(path: Path) -> bytes:
    try:
        size = file_size(path)
        if size > _MAX_LABEL_BYTES:
            raise DataError(f"{path}: {size:,} bytes is too large for a label file: is this the right file?")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a label file ({error.strerror}): repair or remove it") from None


def _read_text(path: Path) -> str:
    """Read UTF-8, or the UTF-16 that `>` of Windows PowerShell 5 writes; other bytes become replacement characters."""
    data = _read(path)
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig", "replace")


def _parse_xml(path: Path) -> ElementTree.Element:
    data = _read(path)
    try:
        try:
            return _xml_root(data)
        except UnicodeError:
            raise
        except ValueError:  # expat itself accepts only UTF-8, UTF-16 and single-byte encodings
            return _xml_root(_decoded(data))
    except ElementTree.ParseError as error:
        raise DataError(f"{path}:{error.position[0]}: not valid XML ({error}): repair or remove it") from None
    except (LookupError, UnicodeError) as error:
        reason = excerpt(str(error), _MAX_ERROR)
        raise DataError(f"{path}:1: not text in the encoding it declares ({reason}): save it as UTF-8") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _xml_root(content: bytes | str) -> ElementTree.Element:
    return ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoDoctype()))


def _decoded(data: bytes) -> str:
    declared = _DECLARED.match(data)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    return data.decode(_WIDER.get(name, name))


def _voc_size(root: ElementTree.Element, notes: list[str]) -> tuple[int, int] | None:
    """Height and width; None if they are missing, zero, or (noted) not valid numbers of pixels."""
    texts = [(root.findtext(f"size/{key}") or "").strip() for key in ("height", "width")]
    try:
        sides = [float(text or 0) for text in texts]
    except ValueError:
        sides = [math.nan]
    if not all(0 <= side < MAX_SIDE for side in sides):
        notes.append(f"size {' x '.join(map(excerpt, texts))} is no size in pixels, left out")
        return None
    height, width = map(int, sides)
    return (height, width) if height and width else None


def _from_voc(first: float, last: float) -> tuple[float, float]:
    """Convert 1-based inclusive pixel numbers of one axis to 0-based continuous edges; reversed ones stay reversed."""
    if first < last:
        return first - 1, last
    return (first, last - 1) if first > last else (first, last)


def _from_center(cx: float, cy: float, w: float, h: float) -> tuple[float, float, float, float]:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _from_polygon(points: list[float]) -> tuple[float, float, float, float]:
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)
