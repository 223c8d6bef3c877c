"""Changes of color at the price of one: what is linear in red, green and blue is one matrix."""

import math
from typing import Any

import albumentations as A
import cv2
import numpy as np

_GRAY, _BRIGHTNESS_CONTRAST, _JITTER, _GAMMA = 0.1, 0.3, 0.3, 0.3  # probabilities
# The defaults of Albumentations' RandomBrightnessContrast, ColorJitter and RandomGamma.
_MORE_OR_LESS = 0.2
_ANY_HUE = 0.5  # of a turn, to both sides
_ROWS_APART = 7  # of the rows whose mean stands for the picture's; a JPEG's blocks have 8
_WHITE = 255.0
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601
_RGB_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, FCC 1953
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_UNCHANGED = np.eye(3, 4)


class ColorJitter(A.ImageOnlyTransform):
    """Gray, brightness and contrast, color jitter and gamma, in this order, each with a probability of its own.

    As Albumentations' ToGray, RandomBrightnessContrast, ColorJitter and RandomGamma with their defaults, but that
    values are cut to 0..255 once, after all that is linear; that contrast is about the mean of every seventh row; and
    that the hue is turned in YIQ: by a matrix, as DALI's ColorJitter does (https://docs.nvidia.com/deeplearning/dali),
    where HSV takes two conversions of the picture.
    """

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002 - Albumentations' signature
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """What to do: `matrix` (3, 4) float64 and `curve` (256,) uint8, None where nothing is to be done."""
        random, uniform = self.py_random.random, self.py_random.uniform
        matrix = _UNCHANGED
        if random() < _GRAY:
            matrix = _then(matrix, np.tile(_LUMA, (3, 1)))
        if random() < _BRIGHTNESS_CONTRAST:
            contrast, brightness = _around_one(uniform), uniform(-_MORE_OR_LESS, _MORE_OR_LESS)
            matrix = _then(matrix, contrast * np.eye(3), brightness * _WHITE)
        if random() < _JITTER:
            brightness, contrast, saturation = (_around_one(uniform) for _ in range(3))
            linear = _turned(uniform(-_ANY_HUE, _ANY_HUE)) @ _saturated(saturation) * brightness
            matrix = _then(matrix, linear)
            mean = cv2.mean(data["image"][::_ROWS_APART])[:3]
            gray = _LUMA @ matrix @ (*mean, 1)  # of the picture so far
            matrix = _then(matrix, contrast * np.eye(3), (1 - contrast) * gray)
        curve = _gamma_curve(_around_one(uniform)) if random() < _GAMMA else None
        return {"matrix": None if matrix is _UNCHANGED else matrix, "curve": curve}

    def apply(self, img: np.ndarray, matrix: np.ndarray | None, curve: np.ndarray | None, **_: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB with other colors."""
        if matrix is not None:
            img = cv2.transform(img, matrix)
        return img if curve is None else cv2.LUT(img, curve)


def _around_one(uniform: Any) -> float:
    return uniform(1 - _MORE_OR_LESS, 1 + _MORE_OR_LESS)


def _then(matrix: np.ndarray, linear: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """The (3, 4) matrix followed by a (3, 3) one and an offset."""
    return linear @ matrix + np.array([0, 0, 0, offset])


def _saturated(factor: float) -> np.ndarray:
    """(3, 3): between gray, 0, and beyond the colors as they are, 1."""
    return factor * np.eye(3) + (1 - factor) * _LUMA


def _turned(hue: float) -> np.ndarray:
    """(3, 3): the hue by so much of a turn, at the same luma."""
    sine, cosine = math.sin(math.tau * hue), math.cos(math.tau * hue)
    return _YIQ_TO_RGB @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _RGB_TO_YIQ


def _gamma_curve(gamma: float) -> np.ndarray:
    """(256,) uint8: each value to that power, black and white staying what they are."""
    return np.rint((np.arange(256) / _WHITE) ** gamma * _WHITE).astype(np.uint8)
