"""Sampling for rare classes: repeat factors of images, class weights; the sample of training images to evaluate."""

import numpy as np

from utils.labels.index import LabelIndex


def repeat_factors(index: LabelIndex, threshold: float) -> np.ndarray:
    """Repeat-factor sampling of LVIS (Gupta et al. 2019, https://arxiv.org/abs/1908.03195, section 4.1).

    A class that a share f of all images has asks for its images max(1, sqrt(threshold / f)) times an epoch, and an
    image is shown as often as its rarest class asks. Ignored boxes do not count.

    Returns:
        (N,) float64 of at least 1; an image without boxes has 1.
    """
    images, labels = index.image_of_box()[~index.ignored], index.labels[~index.ignored]
    pairs = np.unique(np.stack([images, labels]), axis=1)  # an image counts once for a class
    share = np.bincount(pairs[1], minlength=len(index.classes)) / len(index)
    wanted = np.sqrt(threshold / np.maximum(share, 1 / len(index)))
    factors = np.ones(len(index))
    np.maximum.at(factors, pairs[0], wanted[pairs[1]])
    return factors


def class_weights(index: LabelIndex) -> np.ndarray:
    """Weights of the classes by which each counts as much as the others, however many boxes it has.

    The n boxes of one of K classes with N boxes in all weigh N / (K n) each, from 0.1 to 10: one box of a class that
    has no other would else drown all the rest.

    Returns:
        (classes,) float32; 1 for the background and for classes without boxes.
    """
    counts = np.bincount(index.labels[~index.ignored], minlength=len(index.classes))
    there = counts > 0
    weights = np.ones(len(counts), np.float32)
    weights[there] = np.clip(counts.sum() / (there.sum() * counts[there]), 0.1, 10)
    return weights


def train_sample(images: int, wish: int | None, seed: int) -> list[int]:
    """Numbers of the training images, of so many, that are measured after every epoch; ascending.

    Args:
        wish: how many; without it a tenth of them, but at most 100 and at least 20.
    """
    count = max(20, min(images // 10, 100)) if wish is None else wish
    rng = np.random.default_rng([seed, images])
    return sorted(rng.permutation(images)[:count].tolist())
