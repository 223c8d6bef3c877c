"""Class-aware tracking with class-agnostic trackers: one tracker per class, so that no track changes its class."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

from utils.detect.detections import Detections
from utils.tracking.tracks import Tracks, pairwise_iou

_DUPLICATE_IOU = 0.7  # detections of different classes that overlap as much are one object
T = TypeVar("T")
Step = Callable[[T, Sequence[int]], Iterable[tuple[Hashable, int]]]


class PerClassTrackers(Generic[T]):
    """Trackers by class, each created at the first detection of its class and then updated with every frame.

    Ids are unique across classes.
    """

    def __init__(self, create: Callable[[int], T]) -> None:
        self._create = create
        self._trackers: dict[int, T] = {}
        self._ids: dict[tuple[int, Hashable], int] = {}  # label and id within its tracker -> id

    def update(self, detections: Detections, usable: np.ndarray, step: Step[T]) -> Tracks:
        """Update all trackers; return the tracks with boxes and scores of their detections, ordered by id.

        Args:
            detections: detections of the frame.
            usable: (N,) mask of the detections passed to the trackers.
            step: updates one tracker with the indices of its detections; yields pairs of its track id and an index.
        """
        for label in sorted(set(detections.labels[usable].tolist()) - self._trackers.keys()):
            self._trackers[label] = self._create(label)
        matches = []
        for label, tracker in self._trackers.items():
            indices = np.flatnonzero(usable & (detections.labels == label)).tolist()
            for tracker_id, index in step(tracker, indices):
                matches.append((self._ids.setdefault((label, tracker_id), len(self._ids) + 1), index))
        ids, at = np.array(sorted(matches), np.int64).reshape(-1, 2).T
        return Tracks(detections.boxes[at], ids, detections.labels[at], detections.scores[at])


def cross_class_duplicates(detections: Detections, usable: np.ndarray) -> np.ndarray:
    """Find usable detections that overlap a higher-scoring one of another class; return an (N,) mask."""
    boxes, labels = detections.boxes[usable], detections.labels[usable]
    same = (pairwise_iou(boxes, boxes) >= _DUPLICATE_IOU) & (labels[:, None] != labels[None])
    duplicates = np.zeros(len(detections), bool)
    duplicates[usable] = np.tril(same, -1).any(1)  # detections are best first
    return duplicates
