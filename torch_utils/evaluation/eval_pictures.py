"""Pictures of the images with most errors: ground truth on the left, detections on the right."""

import io
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from torch_utils.evaluation.detection_analysis import CORRECT, ERRORS, IGNORED, KINDS, ImageErrors
from utils.labels.index import LabelIndex
from utils.text import printable
from utils.visualize.drawing import draw_detections, draw_ground_truth, grid

_SIDE = 560  # px, the longer side of an image
_LARGEST_SCALE = 8
_COLUMNS = 2  # pairs in a row
_WIDTH = 8.5  # inches per pair
_DPI = 100
_LONGEST = 48  # characters of a file name


def error_picture(index: LabelIndex, image: int, errors: ImageErrors) -> np.ndarray:
    """Draw the ground truth and the detections of image `image` side by side: (H, W, 3) uint8 RGB.

    The labels of missed boxes and of errors begin with their kind, as "duplicate: cat".

    Raises:
        DataError: the image can no longer be read.
    """
    pixels, rows = index.pixels(image), index.rows(image)
    scale = min(_LARGEST_SCALE, _SIDE / max(pixels.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, right = resized, resized
    boxes, labels, ignored = index.boxes[rows] * scale, index.labels[rows], index.ignored[rows]
    for mask, kind in ((ignored, "ignored"), (~errors.missed & ~ignored, ""), (errors.missed, "missed")):
        left = draw_ground_truth(left, boxes[mask], labels[mask], _with_prefix(index.classes, kind))
    scaled = replace(errors.detections, boxes=errors.detections.boxes * scale)
    for kind in (IGNORED, CORRECT, *ERRORS):
        names = _with_prefix(index.classes, "" if kind == CORRECT else KINDS[kind])
        right = draw_detections(right, scaled.where(errors.kinds == kind), names)
    return grid([left, right], cell=_SIDE, columns=2)


def contact_sheet(pictures: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """Arrange at least one (H, W, 3) uint8 RGB picture, each below its title, and encode them as one JPEG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(picture.shape[0] / picture.shape[1] for _, picture in pictures)
    figure = Figure(figsize=(columns * _WIDTH, rows * (_WIDTH * tallest + 0.4)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in (grid_axes := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, (title, picture) in zip(grid_axes.flat, pictures, strict=False):
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(title, fontsize=12, loc="left", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI, format="jpeg")
    return file.getvalue()


def error_title(index: LabelIndex, image: int, errors: ImageErrors) -> str:
    """File name and number of errors by kind, as "photo.jpg: 3 missed, 1 duplicate"."""
    name = printable(str(index.path(image).relative_to(index.folder)))
    short = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
    counts = {KINDS[kind]: int((errors.kinds == kind).sum()) for kind in ERRORS}
    parts = [f"{n} {kind}" for kind, n in {"missed": int(errors.missed.sum()), **counts}.items() if n]
    return f"{short}: {', '.join(parts)}"


def _with_prefix(classes: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}: {name}" for name in classes) if prefix else classes
