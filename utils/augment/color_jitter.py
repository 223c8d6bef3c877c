"""Color augmentation in one pass: all operations that are linear in red, green and blue become one matrix."""

import math
from typing import Any

import albumentations as A
import cv2
import numpy as np

_GRAY, _BRIGHTNESS_CONTRAST, _JITTER, _GAMMA = 0.1, 0.3, 0.3, 0.3  # probabilities
# The defaults of Albumentations' RandomBrightnessContrast, ColorJitter and RandomGamma.
_RANGE = 0.2
_HUE_RANGE = 0.5  # of a full turn, in both directions
_ROW_STEP = 7  # rows between two that the mean is computed from; not 8, the height of a JPEG block
_WHITE = 255.0
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601
_RGB_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, FCC 1953
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_UNCHANGED = np.eye(3, 4)


class ColorJitter(A.ImageOnlyTransform):
    """Gray, brightness and contrast, color jitter and gamma, in this order, each with its own probability.

    Like Albumentations' ToGray, RandomBrightnessContrast, ColorJitter and RandomGamma with their defaults, except that

    - values are clipped to 0..255 once, after all linear operations;
    - contrast is changed around the mean of every seventh row;
    - the hue is rotated in YIQ by a matrix, as in DALI's ColorJitter (https://docs.nvidia.com/deeplearning/dali), while
      HSV needs two conversions of the image.
    """

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002 - Albumentations' signature
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """Draw the parameters: `matrix` (3, 4) float64 and `curve` (256,) uint8; None leaves the image unchanged."""
        random, uniform = self.py_random.random, self.py_random.uniform
        matrix = _UNCHANGED
        if random() < _GRAY:
            matrix = _then(matrix, np.tile(_LUMA, (3, 1)))
        if random() < _BRIGHTNESS_CONTRAST:
            contrast, brightness = _around_one(uniform), uniform(-_RANGE, _RANGE)
            matrix = _then(matrix, contrast * np.eye(3), brightness * _WHITE)
        if random() < _JITTER:
            brightness, contrast, saturation = (_around_one(uniform) for _ in range(3))
            linear = _hue_rotation(uniform(-_HUE_RANGE, _HUE_RANGE)) @ _saturation(saturation) * brightness
            matrix = _then(matrix, linear)
            mean = cv2.mean(data["image"][::_ROW_STEP])[:3]
            gray = _LUMA @ matrix @ (*mean, 1)  # after the operations so far
            matrix = _then(matrix, contrast * np.eye(3), (1 - contrast) * gray)
        curve = _gamma_curve(_around_one(uniform)) if random() < _GAMMA else None
        return {"matrix": None if matrix is _UNCHANGED else matrix, "curve": curve}

    def apply(self, img: np.ndarray, matrix: np.ndarray | None, curve: np.ndarray | None, **_: Any) -> np.ndarray:
        """Change the colors of (H, W, 3) uint8 RGB."""
        if matrix is not None:
            img = cv2.transform(img, matrix)
        return img if curve is None else cv2.LUT(img, curve)


def _around_one(uniform: Any) -> float:
    return uniform(1 - _RANGE, 1 + _RANGE)


def _then(matrix: np.ndarray, linear: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Compose the (3, 4) matrix with a (3, 3) one and an offset that follow it."""
    return linear @ matrix + np.array([0, 0, 0, offset])


def _saturation(factor: float) -> np.ndarray:
    """(3, 3) matrix that scales the saturation: 0 gives gray, 1 leaves colors unchanged."""
    return factor * np.eye(3) + (1 - factor) * _LUMA


def _hue_rotation(hue: float) -> np.ndarray:
    """(3, 3) matrix that rotates the hue by this share of a full turn and keeps the luma."""
    sine, cosine = math.sin(math.tau * hue), math.cos(math.tau * hue)
    return _YIQ_TO_RGB @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _RGB_TO_YIQ


def _gamma_curve(gamma: float) -> np.ndarray:
    """(256,) uint8 lookup table that raises values in 0..1 to this power."""
    return np.rint((np.arange(256) / _WHITE) ** gamma * _WHITE).astype(np.uint8)
