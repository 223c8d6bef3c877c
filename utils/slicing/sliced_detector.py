"""Slicing aided detection: run a detector on overlapping slices of an image, so that small objects are enlarged.

    detector = SlicedDetector(load_detector("best_model.pth"))
    detections = detector("harbour.jpg", threshold=0.5)

The detections equal those of SAHI (https://github.com/obss/sahi): same slices, each processed as a separate image,
optionally the whole image as well, and the same merging. Slices are batched across images.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.detect.detections import Detections
from utils.detect.detector import Detector, ImageLike
from utils.machine import cores
from utils.prefetch import prefetched
from utils.slicing.grid import Slices
from utils.slicing.merging import Merging, merge

if TYPE_CHECKING:
    from utils.cli.options import SliceOptions

LOW_SCORE = 0.1  # below this threshold SAHI uses NMS, since low-scoring boxes would enlarge good ones
_BATCH = 8  # slices
_FIELDS = ("boxes", "scores", "labels")  # of Detections
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlicedImage:
    """An image and its windows (N, 4) left, top, right, bottom, in order of processing; maybe the whole image last."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    windows: np.ndarray


class SlicedDetector(Detector):
    """Detector that runs another detector on slices.

    Detections below the threshold or of other classes are dropped before merging. Pass both here or in the call.

    Args:
        detector: processes each slice as an image, resized by its size rule.
        merging: default GREEDYNMM with IOS of at least 0.5; NMS with IOU if the threshold is below 0.1.
        whole_image: also detect in the whole image, for large objects.
        threshold: lowest score, see Detections.filtered.
        classes: keep only these labels.
        batch: slices per call of the detector.
        enlarge_threshold: lowest score of boxes that enlarge others when merged, as `threshold`. Boxes below it, which
            trackers use, do not change the others.
    """

    def __init__(
        self,
        detector: Detector,
        slices: Slices | None = None,
        merging: Merging | None = None,
        *,
        whole_image: bool = True,
        threshold: float | np.ndarray = 0.0,
        classes: Collection[int] | None = None,
        batch: int = _BATCH,
        enlarge_threshold: float | np.ndarray = 0.0,
    ) -> None:
        super().__init__(detector.info)
        self.detector = detector
        self.slices = slices or Slices()
        self._merging = merging
        self.whole_image = whole_image
        self.threshold = threshold
        self.classes = classes
        self.batch = batch
        self.enlarge_threshold = enlarge_threshold

    @property
    def merging(self) -> Merging:
        """Rule that merges the boxes of all slices."""
        return self._merging or default_merging(np.maximum(self.threshold, self.enlarge_threshold))

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        threshold: float | np.ndarray = 0.0,
        classes: Collection[int] | None = None,
    ) -> Any:
        """See Detector. Boxes below the threshold or of other classes are dropped before merging."""
        configured = copy(self)
        configured.threshold = np.maximum(threshold, self.threshold)
        if classes is not None:
            configured.classes = set(classes) if self.classes is None else set(classes) & set(self.classes)
        return super(SlicedDetector, configured).__call__(images)

    def prepare(self, image: np.ndarray) -> SlicedImage:
        """See Detector. Slices are cropped later, during detection: all at once may exceed memory."""
        height, width = image.shape[:2]
        windows = self.slices.windows(height, width)
        if self.whole_image and len(windows) > 1:
            windows = np.concatenate([windows, [[0, 0, width, height]]])
        return SlicedImage(image, windows)

    def detect(self, prepared: Sequence[SlicedImage]) -> list[Detections]:
        """See Detector."""
        windows = [(i, window) for i, sliced in enumerate(prepared) for window in sliced.windows.tolist()]
        per_image: list[list[Detections]] = [[] for _ in prepared]
        for (i, window), detections in zip(windows, self._detect_windows(prepared, windows), strict=True):
            detections = detections.filtered(self.threshold, self.classes)
            per_image[i].append(_to_image(detections, window, prepared[i].image))
        return [self._merge(parts) for parts in per_image]

    def _detect_windows(
        self, prepared: Sequence[SlicedImage], windows: Sequence[tuple[int, Sequence[int]]]
    ) -> Iterator[Detections]:
        """Detect in each window, in its own pixels. Windows are cropped and resized ahead, in threads."""

        def crop(window: tuple[int, Sequence[int]]) -> Any:
            i, (left, top, right, bottom) = window
            return self.detector.prepare(np.ascontiguousarray(prepared[i].image[top:bottom, left:right]))

        crops = prefetched(crop, windows, ahead=2 * self.batch, threads=min(4, cores()))
        while batch := list(islice(crops, self.batch)):
            yield from self.detector.detect(batch)

    def _merge(self, parts: Sequence[Detections]) -> Detections:
        every = Detections(*(np.concatenate([getattr(p, key) for p in parts]) for key in _FIELDS))
        may_enlarge = every.at_least(self.enlarge_threshold)
        return merge(every.boxes, every.scores, every.labels, self.merging, may_enlarge=may_enlarge)


def default_merging(threshold: float | np.ndarray) -> Merging:
    """Return SAHI's default rule, which depends on the lowest score of the merged boxes."""
    lowest = threshold[1:].min() if np.ndim(threshold) else threshold
    return Merging("NMS", "IOU") if lowest < LOW_SCORE else Merging()


def slice_detector(
    detector: Detector,
    options: "SliceOptions",
    *,
    threshold: float | np.ndarray = 0.0,
    classes: Collection[int] | None = None,
    batch: int | None = None,
    enlarge_threshold: float | np.ndarray = 0.0,
) -> SlicedDetector:
    """Wrap a detector in a SlicedDetector configured by the flags, and log the configuration.

    Args:
        threshold: lowest score that is kept and merged.
        classes: labels that are kept.
        batch: slices per call of the detector; default 8.
        enlarge_threshold: see SlicedDetector.
    """
    slices = Slices(
        options.slice_height, options.slice_width, options.overlap_height_ratio, options.overlap_width_ratio
    )
    base = default_merging(1.0 if options.postprocess_type else np.maximum(threshold, enlarge_threshold))
    merging = replace(
        base,
        kind=options.postprocess_type or base.kind,
        metric=options.match_metric or base.metric,
        threshold=options.match_threshold,
        class_agnostic=options.class_agnostic,
    )
    whole = ", and the whole image" if options.standard_pred else ""
    log.info("Slices of %s%s, each at %s; %s", slices, whole, detector.info.size_rule, merging)
    return SlicedDetector(
        detector, slices, merging, whole_image=options.standard_pred, threshold=threshold, classes=classes,
        batch=batch or _BATCH, enlarge_threshold=enlarge_threshold,
    )  # fmt: skip


def _to_image(detections: Detections, window: Sequence[int], image: np.ndarray) -> Detections:
    """Shift boxes from pixels of a window to pixels of its image; in float64, as SAHI does."""
    height, width = image.shape[:2]
    boxes = detections.boxes.astype(np.float64).clip(0, [width, height] * 2) + (window[:2] * 2)
    return Detections(boxes, detections.scores, detections.labels)
