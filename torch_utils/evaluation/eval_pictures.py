"""The images on which a detector errs most: ground truth on the left, detections on the right."""

import io
from collections.abc import Sequence

import cv2
import numpy as np

from torch_utils.evaluation.analysis import CORRECT, ERRORS, IGNORED, KINDS, ImageErrors
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex
from utils.text import printable
from utils.visualize.drawing import draw_detections, draw_truth, grid

_SIDE = 560  # px, the longer side of an image
_LARGEST_SCALE = 8
_COLUMNS = 2  # pairs side by side
_WIDTH = 8.5  # inches of a pair
_DPI = 100
_LONGEST = 48  # characters of a file name


def error_picture(index: LabelIndex, image: int, errors: ImageErrors) -> np.ndarray:
    """Image `image` twice, (H, W, 3) uint8 RGB: what is missed and what is wrong have a word before the class.

    Raises:
        DataError: it can no longer be read.
    """
    pixels, rows = index.pixels(image), index.rows(image)
    scale = min(_LARGEST_SCALE, _SIDE / max(pixels.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    empty = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    truth, found = empty, empty
    boxes, labels, ignored = index.boxes[rows] * scale, index.labels[rows], index.ignored[rows]
    for which, word in ((ignored, "ignored"), (~errors.missed & ~ignored, ""), (errors.missed, "missed")):
        truth = draw_truth(truth, boxes[which], labels[which], _named(index.classes, word))
    scaled = Detections(errors.found.boxes * scale, errors.found.scores, errors.found.labels)
    for kind in (IGNORED, CORRECT, *ERRORS):
        names = _named(index.classes, "" if kind == CORRECT else KINDS[kind])
        found = draw_detections(found, scaled.where(errors.kinds == kind), names)
    return grid([truth, found], cell=_SIDE, columns=2)


def contact_sheet(pictures: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """A JPEG of (H, W, 3) uint8 RGB pictures, at least one, each under its title."""
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
    """ "photo.jpg: 3 missed, 1 false"."""
    name = printable(str(index.path(image).relative_to(index.folder)))
    short = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
    counts = {KINDS[kind]: int((errors.kinds == kind).sum()) for kind in ERRORS}
    words = [f"{n} {kind}" for kind, n in {"missed": int(errors.missed.sum()), **counts}.items() if n]
    return f"{short}: {', '.join(words)}"


def _named(classes: tuple[str, ...], word: str) -> tuple[str, ...]:
    return tuple(f"{word}: {name}" for name in classes) if word else classes
