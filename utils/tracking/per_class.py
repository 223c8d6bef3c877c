"""Trackers that know no classes, one for each class: no track changes its class."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

from utils.detect.detections import Detections
from utils.tracking.tracks import Tracks, pairwise_iou

_SAME_OBJECT = 0.7  # IoU of two detections of different classes that are one object
T = TypeVar("T")
Step = Callable[[T, Sequence[int]], Iterable[tuple[Hashable, int]]]


class OnePerClass(Generic[T]):
    """Makes a class's tracker when one of the class is first seen; from then on it has every frame.

    Ids are counted over all of them.
    """

    def __init__(self, create: Callable[[int], T]) -> None:
        self._create = create
        self._trackers: dict[int, T] = {}
        self._ids: dict[tuple[int, Hashable], int] = {}  # class and its tracker's id -> ours

    def update(self, detections: Detections, usable: np.ndarray, step: Step[T]) -> Tracks:
        """The tracks of a frame, with boxes and scores of their detections, in order of their ids.

        Args:
            detections: of the frame.
            usable: (N,) mask of those that trackers are given.
            step: one frame of one tracker: from the indices of its detections to pairs of its id and an index.
        """
        for label in sorted(set(detections.labels[usable].tolist()) - self._trackers.keys()):
            self._trackers[label] = self._create(label)
        told = []
        for label, tracker in self._trackers.items():
            own = np.flatnonzero(usable & (detections.labels == label)).tolist()
            for theirs, index in step(tracker, own):
                told.append((self._ids.setdefault((label, theirs), len(self._ids) + 1), index))
        ids, at = np.array(sorted(told), np.int64).reshape(-1, 2).T
        return Tracks(detections.boxes[at], ids, detections.labels[at], detections.scores[at])


def second_guesses(detections: Detections, usable: np.ndarray) -> np.ndarray:
    """(N,) bool: of the usable ones, those on an object that a better one says to be of another class."""
    boxes, labels = detections.boxes[usable], detections.labels[usable]
    same = (pairwise_iou(boxes, boxes) >= _SAME_OBJECT) & (labels[:, None] != labels[None])
    guesses = np.zeros(len(detections), bool)
    guesses[usable] = np.tril(same, -1).any(1)  # detections are best first
    return guesses
