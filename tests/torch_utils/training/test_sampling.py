"""Rare classes: how often an image is shown, and what its classes weigh."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torch_utils.training.sampling import class_weights, repeat_factors, train_sample
from utils.labels.index import LabelIndex
from utils.loading.samplers import TrainBatchSampler

COMMON, RARE, SEEN_ONCE, NEVER = 1, 2, 3, 4


class Labels:
    """What is read of a LabelIndex: `images` are the labels of each; negative ones are ignored boxes."""

    classes = ["__background__", "common", "rare", "seen once", "never"]
    image_of_box = LabelIndex.image_of_box

    def __init__(self, *images: list[int]) -> None:
        flat = np.array([label for image in images for label in image], int)
        self.labels, self.ignored = abs(flat), flat < 0
        self.offsets = np.cumsum([0, *map(len, images)])

    def __len__(self) -> int:
        return len(self.offsets) - 1


INDEX = Labels(
    [COMMON], [COMMON, COMMON, RARE], [], [COMMON, -SEEN_ONCE], [RARE, SEEN_ONCE], [COMMON], [COMMON], [COMMON]
)


def test_factors_are_those_of_the_paper() -> None:
    """Shares of the eight images: common 6/8, rare 2/8, seen once 1/8; a box that is ignored does not count."""
    factors = repeat_factors(INDEX, 0.5)
    assert factors == pytest.approx([1, math.sqrt(2), 1, 1, 2, 1, 1, 1])
    assert (repeat_factors(INDEX, 0.1) == 1).all()
    assert (repeat_factors(Labels([], []), 0.5) == 1).all()


def test_every_class_weighs_as_much_as_the_others() -> None:
    weights = class_weights(INDEX)
    assert weights.dtype == np.float32
    assert weights == pytest.approx([1, 10 / (3 * 7), 10 / (3 * 2), 10 / 3, 1])
    assert (class_weights(Labels([])) == 1).all()
    assert class_weights(Labels([COMMON] * 1000, [RARE]))[RARE] == 10


def epoch(batches: TrainBatchSampler, number: int) -> list[tuple[int, int]]:
    batches.epoch = number
    return [(pick.image, pick.epoch) for batch in batches for pick in batch]


@example([1.0000000000000002], 1, 0)
@given(st.lists(st.floats(1, 5), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 5))
def test_every_epoch_is_as_long_and_shows_each_image_about_as_often_as_asked(repeat, batch_size, seed) -> None:
    factors = np.array(repeat)
    batches = TrainBatchSampler(len(factors), batch_size, seed=seed, repeat=factors)
    for number in range(3):
        keys = epoch(batches, number)
        assert len(keys) == math.ceil(factors.sum() - 1e-9)
        assert len(list(batches)) == len(batches)
        assert len(set(keys)) == len(keys), "copies are augmented differently"
        counts = np.bincount([i for i, _ in keys], minlength=len(factors))
        scaled = factors * len(keys) / factors.sum()
        assert (counts >= 1).all()
        assert (abs(counts - scaled) < 1 + 1e-6).all()
        assert all(e == number for i, e in keys if counts[i] == 1)


def test_shares_of_the_epochs_are_the_factors() -> None:
    factors = np.array([1.0, 1.25, 2.5, 1.0, 1.25])
    batches = TrainBatchSampler(5, 2, seed=0, repeat=factors)
    counts = sum(np.bincount([i for i, _ in epoch(batches, e)], minlength=5) for e in range(800)) / 800
    assert counts == pytest.approx(factors, abs=0.06)
    assert epoch(batches, 3) == epoch(TrainBatchSampler(5, 2, seed=0, repeat=factors), 3)
    assert epoch(batches, 3) != epoch(TrainBatchSampler(5, 2, seed=1, repeat=factors), 3)


@pytest.mark.parametrize("repeat", [None, np.array([1.0, 2.0, 1.5, 1.5])])
def test_processes_share_the_batches_of_one(repeat: np.ndarray | None) -> None:
    whole = epoch(TrainBatchSampler(4, 4, seed=0, repeat=repeat), 1)
    parts = [TrainBatchSampler(4, 2, seed=0, rank=rank, world_size=2, repeat=repeat) for rank in (0, 1)]
    keys = [epoch(part, 1) for part in parts]
    assert [key for pair in zip(*keys, strict=True) for key in pair] == whole


def test_without_factors_the_order_is_what_it_was() -> None:
    expected = np.random.default_rng([7, 2]).permutation(9)
    assert epoch(TrainBatchSampler(9, 2, seed=7), 2) == [(int(i), 2) for i in expected]


@pytest.mark.parametrize(
    ("images", "wish", "count"),
    [(7, None, 7), (150, None, 20), (400, None, 40), (5000, None, 100), (50, 0, 0), (50, 3, 3), (5, 9, 5)],
)
def test_the_training_images_that_are_measured(images: int, wish: int | None, count: int) -> None:
    sample = train_sample(images, wish, seed=1)
    assert len(set(sample)) == len(sample) == count
    assert sample == sorted(sample)
    assert all(0 <= image < images for image in sample)
    assert sample == train_sample(images, wish, seed=1)
    if 0 < count < images:
        assert sample != train_sample(images, wish, seed=2)
