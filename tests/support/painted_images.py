"""Images whose boxes can be checked by their colors, for tests of augmentation."""

import numpy as np
from hypothesis import strategies as st

from utils.augment.transforms import (
    LabeledImage,
)


@st.composite
def pictures(draw, max_side: int = 60) -> LabeledImage:
    """Read-only image whose boxes are painted in different colors and do not overlap in x."""
    height, width = draw(st.integers(4, max_side)), draw(st.integers(4, max_side))
    cuts = sorted(draw(st.lists(st.integers(0, width), min_size=0, max_size=6, unique=True)))
    image = np.zeros((height, width, 3), np.uint8)
    boxes, labels = [], []
    for number, (left, right) in enumerate(zip(cuts[::2], cuts[1::2], strict=False), 1):
        top = draw(st.integers(0, height - 1))
        bottom = draw(st.integers(top + 1, height))
        image[top:bottom, left:right] = 50 * number
        boxes.append((left, top, right, bottom))
        labels.append(number)
    return frozen(image, boxes, labels)


def frozen(image: np.ndarray, boxes: list, labels: list) -> LabeledImage:
    """Make read-only arrays, as a cache returns them: augmentation must not change them."""
    arrays = image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)
    for array in arrays:
        array.flags.writeable = False
    return LabeledImage(*arrays)


def assert_boxes_inside(picture: LabeledImage) -> None:
    height, width = picture.image.shape[:2]
    assert picture.image.dtype == np.uint8
    assert picture.boxes.dtype == np.float32
    assert picture.labels.shape == picture.boxes.shape[:1]
    assert (picture.boxes[:, :2] >= 0).all()
    assert (picture.boxes[:, 2:] <= np.array([width, height]) + 1e-3).all()
    assert (picture.boxes[:, 2:] > picture.boxes[:, :2]).all()


def assert_boxes_hold_their_colors(picture: LabeledImage) -> None:
    """Check that most of each box has its label's color; interpolation changes thin boxes most."""
    for (x1, y1, x2, y2), label in zip(picture.boxes, picture.labels, strict=True):
        if min(x2 - x1, y2 - y1) > 8:
            inner = picture.image[int(y1) + 1 : int(y2), int(x1) + 1 : int(x2), 0]
            assert abs(np.median(inner) - 50 * label) < 25


EXAMPLE_PIPELINE = """
- HorizontalFlip: {p: 0.5}
- OneOf:
    p: 0.3
    transforms:
      - MotionBlur: {blur_limit: 5}
      - GaussNoise: {}
- RandomBrightnessContrast: {brightness_limit: 0.2, p: 0.5}
"""
