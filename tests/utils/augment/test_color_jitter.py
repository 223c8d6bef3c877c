"""Compare each color operation with the transform of Albumentations that it replaces."""

import os
import random

import cv2
import numpy as np
import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import albumentations.augmentations.pixel.functional as F

from utils.augment import color_jitter as color_twist
from utils.augment.color_jitter import ColorJitter

GRAY, BRIGHTNESS_CONTRAST, JITTER, GAMMA = "_GRAY", "_BRIGHTNESS_CONTRAST", "_JITTER", "_GAMMA"
LUMA = np.array([0.299, 0.587, 0.114])


def picture(low: int = 70, high: int = 160) -> np.ndarray:
    """Image whose values stay within 0..255 in every operation."""
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(low, high, (8, 10, 3), np.uint8), (60, 48), interpolation=cv2.INTER_CUBIC)


class Fixed(random.Random):
    """Random generator that returns given numbers."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def uniform(self, low: float, high: float) -> float:
        number = self.numbers.pop(0)
        assert low <= number <= high
        return number


def twist(monkeypatch: pytest.MonkeyPatch, image: np.ndarray, only: str, *numbers: float) -> np.ndarray:
    """Apply one operation with these random numbers to the image."""
    for name in (GRAY, BRIGHTNESS_CONTRAST, JITTER, GAMMA):
        monkeypatch.setattr(color_twist, name, float(name == only))
    change = ColorJitter(p=1)
    change.py_random = Fixed(*numbers)
    before = image.copy()
    made = change.apply(image, **change.get_params_dependent_on_data({}, {"image": image}))
    np.testing.assert_array_equal(image, before)
    assert made.dtype == np.uint8
    assert made.shape == image.shape
    assert not change.py_random.numbers, "all was drawn"
    return made


def assert_near(made: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(made.astype(int) - expected).max() <= 2


def test_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    made = twist(monkeypatch, picture(), GRAY)
    assert np.ptp(made, axis=2).max() == 0
    assert_near(made, F.to_gray_weighted_average(picture())[..., None])


@pytest.mark.parametrize(("contrast", "brightness"), [(0.8, 0.1), (1.2, -0.2), (1.0, 0.2)])
def test_brightness_and_contrast(monkeypatch: pytest.MonkeyPatch, contrast: float, brightness: float) -> None:
    made = twist(monkeypatch, picture(), BRIGHTNESS_CONTRAST, contrast, brightness)
    assert_near(made, (picture() * contrast + brightness * 255).clip(0, 255))


@pytest.mark.parametrize("factor", [0.8, 0.95, 1.2])
def test_brightness_contrast_and_saturation_of_jitter(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    image = picture()
    brighter = twist(monkeypatch, image, JITTER, factor, 1.0, 1.0, 0.0)
    assert_near(brighter, F.adjust_brightness_torchvision(image, factor))
    contrasted = twist(monkeypatch, image, JITTER, 1.0, factor, 1.0, 0.0)
    assert_near(contrasted, F.adjust_contrast_torchvision(image, factor))
    saturated = twist(monkeypatch, image, JITTER, 1.0, 1.0, factor, 0.0)
    assert_near(saturated, F.adjust_saturation_torchvision(image, factor))


@pytest.mark.parametrize("hue", [-0.5, -0.2, 0.1, 1 / 3])
def test_a_turned_hue_keeps_the_luma_and_turns_back(monkeypatch: pytest.MonkeyPatch, hue: float) -> None:
    image = picture(100, 150)
    turned = twist(monkeypatch, image, JITTER, 1.0, 1.0, 1.0, hue)
    assert np.abs(turned @ LUMA - image @ LUMA).max() < 1.5
    assert np.abs(turned.astype(int) - image).mean() > 3
    assert_near(twist(monkeypatch, turned, JITTER, 1.0, 1.0, 1.0, -hue), image)


def test_no_hue_is_turned_of_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    np.testing.assert_array_equal(twist(monkeypatch, gray, JITTER, 1.0, 1.0, 1.0, 0.3), gray)


@pytest.mark.parametrize("gamma", [0.8, 1.2])
def test_gamma(monkeypatch: pytest.MonkeyPatch, gamma: float) -> None:
    image = picture(0, 256)
    assert_near(twist(monkeypatch, image, GAMMA, gamma), F.gamma_transform(image, gamma))
    ends = np.array([[[0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(twist(monkeypatch, ends, GAMMA, gamma), ends)


def test_what_is_not_drawn_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(0, 256)
    assert twist(monkeypatch, image, "none of them") is image


def test_each_is_drawn_as_often_as_its_transform_was() -> None:
    change = ColorJitter(p=1)
    change.set_random_state(np.random.default_rng(0), random.Random(0))
    image = picture()
    drawn = [change.get_params_dependent_on_data({}, {"image": image}) for _ in range(2000)]
    matrices = [p["matrix"] for p in drawn if p["matrix"] is not None]
    assert len(matrices) / 2000 == pytest.approx(1 - 0.9 * 0.7 * 0.7, abs=0.03)
    assert np.mean([p["curve"] is not None for p in drawn]) == pytest.approx(0.3, abs=0.03)
    gray = np.mean([np.abs(m - m[:1]).max() < 1e-9 for m in matrices])
    assert gray * len(matrices) / 2000 == pytest.approx(0.1, abs=0.02)


def test_it_is_a_transform_like_any_other() -> None:
    image = picture()
    compose = A.Compose([ColorJitter(p=1)], seed=3)
    again = A.Compose([ColorJitter(p=1)], seed=3)
    for _ in range(10):
        np.testing.assert_array_equal(compose(image=image)["image"], again(image=image)["image"])
    assert compose.to_dict()["transform"]["transforms"][0]["p"] == 1
