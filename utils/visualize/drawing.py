"""Drawing of boxes and labels on uint8 RGB images.

Functions return a new image, except those that take a `canvas`, which they draw on.
"""

import colorsys
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.detect.detections import Detections

_GOLDEN_RATIO = 0.618034  # hue step, in turns: neighboring classes get different hues
_GROUND_TRUTH = (255, 255, 255)
_UNDRAWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, line ends, surrogates
_MAX_CHARACTERS = 100  # of a label


def class_color(label: int) -> tuple[int, int, int]:
    """RGB color of a class, always the same."""
    hue = (0.02 + label * _GOLDEN_RATIO) % 1.0
    r, g, b = colorsys.hls_to_rgb(hue, 0.5, 0.85)
    return round(r * 255), round(g * 255), round(b * 255)


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str], *, show_labels: bool = True
) -> np.ndarray:
    """Draw a box for every detection, with its class and score if `show_labels`."""
    canvas = image.copy()
    thickness, text_size = line_sizes(canvas)
    for box, label in zip(detections.boxes[::-1], detections.labels[::-1], strict=True):  # highest scores on top
        rectangle(canvas, box, class_color(int(label)), thickness)
    if show_labels:
        for box, score, label in zip(
            detections.boxes[::-1], detections.scores[::-1], detections.labels[::-1], strict=True
        ):
            name = class_names[label] if label < len(class_names) else str(label)
            tag(canvas, box, f"{name} {score:.2f}", class_color(int(label)), text_size)
    return canvas


def draw_ground_truth(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Draw labeled boxes, (N, 4) xyxy in px: in class colors with names, or thin and white without `class_names`."""
    canvas = image.copy()
    thickness, text_size = line_sizes(canvas)
    for box, label in zip(boxes, labels, strict=True):
        color = class_color(int(label)) if class_names else _GROUND_TRUTH
        rectangle(canvas, box, color, thickness if class_names else max(1, thickness // 2))
        if class_names:
            tag(canvas, box, class_names[label], color, text_size)
    return canvas


def grid(images: Sequence[np.ndarray], *, cell: int = 480, columns: int = 4) -> np.ndarray:
    """Arrange images in a grid, each reduced to at most `cell` px on its longer side; aspect ratios are kept."""
    columns = min(columns, len(images))
    fitted = [_fit(image, cell) for image in images]
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    width = max(image.shape[1] for image in fitted)
    gap = 4
    canvas_rows = []
    for row in rows:
        height = max(image.shape[0] for image in row)
        canvas = np.full((height + gap, columns * (width + gap), 3), 32, np.uint8)
        for column, image in enumerate(row):
            left = column * (width + gap) + (width - image.shape[1]) // 2
            canvas[: image.shape[0], left : left + image.shape[1]] = image
        canvas_rows.append(canvas)
    return np.concatenate(canvas_rows)


def _fit(image: np.ndarray, cell: int) -> np.ndarray:
    scale = min(1.0, cell / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def line_sizes(image: np.ndarray) -> tuple[int, int]:
    """Line thickness and text height, in px, proportional to the image's longer side."""
    side = max(image.shape[:2])
    return max(1, round(side / 400)), max(10, round(side / 60))


def rectangle(canvas: np.ndarray, box: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
    """Draw a box's outline on `canvas`, inside of the box."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, thickness)


def tag(canvas: np.ndarray, box: np.ndarray, text: str, color: tuple[int, int, int], size: int) -> int:
    """Draw a label above a box on `canvas`, or inside the box if there is no room above.

    Returns:
        The height of the label in px.
    """
    label = _label(_UNDRAWABLE.sub("?", text[:_MAX_CHARACTERS]), size, color)
    height, width = label.shape[:2]
    x1, y1 = round(float(box[0])), round(float(box[1]))
    left = min(max(0, x1), max(0, canvas.shape[1] - width))
    top = y1 - height if y1 >= height else max(0, y1)
    target = canvas[top : top + height, left : left + width]
    target[:] = label[: target.shape[0], : target.shape[1]]
    return height


@functools.lru_cache(maxsize=1024)
def _label(text: str, size: int, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB: black or white text, by contrast, on a background of `color`."""
    alpha = _text_mask(text, size)[..., None]
    ink = 0 if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 else 255  # ITU-R BT.601 luma
    return (np.array(color) * (1 - alpha) + ink * alpha).astype(np.uint8)


def _text_mask(text: str, size: int) -> np.ndarray:
    """(H, W) float32 coverage of the text, 0..1, with a margin. OpenCV's own fonts are ASCII only."""
    font = _font(size)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    margin = max(2, size // 5)
    mask = Image.new("L", (right - left + 2 * margin, ascent + descent + margin))
    ImageDraw.Draw(mask).text((margin - left, margin // 2), text, fill=255, font=font)
    return np.asarray(mask, np.float32) / 255


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
