"""A detector that looks at an image slice by slice, so that small objects are large enough for it.

    detector = SlicedDetector(load_detector("best_model.pth"))
    detections = detector("harbour.jpg", threshold=0.5)

The detections are those of SAHI (https://github.com/obss/sahi): the same slices, each seen as an image of its own, the
whole image beside them, and the same merging. The slices of all images go through the detector in batches.
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

LOW_SCORE = 0.1  # below it boxes of low scores would enlarge good ones: SAHI then suppresses, and does not unite
_BATCH = 8  # slices
_FIELDS = ("boxes", "scores", "labels")  # of Detections
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlicedImage:
    """An image and its windows (N, 4), in the order in which they are looked at: the slices, and maybe all of it."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    windows: np.ndarray


class SlicedDetector(Detector):
    """Any detector, on slices.

    What is found in slices and is below the threshold, or of another class, is dropped before boxes are merged: so
    say here, or in the call, what is wanted.

    Args:
        detector: sees each slice as an image, so that its size rule says how large slices are for the network.
        merging: without it GREEDYNMM with IOS of at least 0.5, and NMS with IOU where the threshold is below 0.1.
        whole_image: detect in the whole image too, for the large objects.
        threshold: the lowest score, see Detections.filtered.
        classes: keep only these labels.
        batch: slices that are looked at together.
        uniting: the lowest score of boxes that enlarge others, as `threshold`; those below it, which a tracker wants,
            leave the others as they would be without them.
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
        uniting: float | np.ndarray = 0.0,
    ) -> None:
        super().__init__(detector.info)
        self.detector = detector
        self.slices = slices or Slices()
        self.wished_merging = merging
        self.whole_image = whole_image
        self.threshold = threshold
        self.classes = classes
        self.batch = batch
        self.uniting = uniting

    @property
    def merging(self) -> Merging:
        """What is done with the boxes of all slices."""
        return self.wished_merging or default_merging(np.maximum(self.threshold, self.uniting))

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        threshold: float | np.ndarray = 0.0,
        classes: Collection[int] | None = None,
    ) -> Any:
        """See Detector; what the threshold or the classes leave out takes no part in the merging."""
        chosen = copy(self)
        chosen.threshold = np.maximum(threshold, self.threshold)
        if classes is not None:
            chosen.classes = set(classes) if self.classes is None else set(classes) & set(self.classes)
        return super(SlicedDetector, chosen).__call__(images)

    def prepare(self, image: np.ndarray) -> SlicedImage:
        """See Detector. The slices are cut out while others are looked at: all at once may be larger than memory."""
        height, width = image.shape[:2]
        windows = self.slices.windows(height, width)
        if self.whole_image and len(windows) > 1:
            windows = np.concatenate([windows, [[0, 0, width, height]]])
        return SlicedImage(image, windows)

    def detect(self, prepared: Sequence[SlicedImage]) -> list[Detections]:
        """See Detector."""
        views = [(i, window) for i, sliced in enumerate(prepared) for window in sliced.windows.tolist()]
        found: list[list[Detections]] = [[] for _ in prepared]
        for (i, window), detections in zip(views, self._seen(prepared, views), strict=True):
            found[i].append(_moved(detections.filtered(self.threshold, self.classes), window, prepared[i].image))
        return [self._merged(parts) for parts in found]

    def _seen(
        self, prepared: Sequence[SlicedImage], views: Sequence[tuple[int, Sequence[int]]]
    ) -> Iterator[Detections]:
        """What the detector finds in each window, in its pixels; windows are cut out and resized ahead, in threads."""

        def cut(view: tuple[int, Sequence[int]]) -> Any:
            i, (left, top, right, bottom) = view
            return self.detector.prepare(np.ascontiguousarray(prepared[i].image[top:bottom, left:right]))

        ready = prefetched(cut, views, ahead=2 * self.batch, threads=min(4, cores()))
        while batch := list(islice(ready, self.batch)):
            yield from self.detector.detect(batch)

    def _merged(self, parts: Sequence[Detections]) -> Detections:
        found = Detections(*(np.concatenate([getattr(p, key) for p in parts]) for key in _FIELDS))
        return merge(found.boxes, found.scores, found.labels, self.merging, uniting=found.at_least(self.uniting))


def default_merging(threshold: float | np.ndarray) -> Merging:
    """SAHI's: it depends on the lowest score of what is united."""
    lowest = threshold[1:].min() if np.ndim(threshold) else threshold
    return Merging("NMS", "IOU") if lowest < LOW_SCORE else Merging()


def sliced(
    detector: Detector,
    options: "SliceOptions",
    *,
    threshold: float | np.ndarray = 0.0,
    classes: Collection[int] | None = None,
    batch: int | None = None,
    uniting: float | np.ndarray = 0.0,
) -> SlicedDetector:
    """The detector, on slices as the flags say; how is logged.

    Args:
        threshold: the lowest score that is kept, and so is merged.
        classes: those that count.
        batch: slices that are looked at together; without it 8.
        uniting: see SlicedDetector.
    """
    slices = Slices(
        options.slice_height, options.slice_width, options.overlap_height_ratio, options.overlap_width_ratio
    )
    default = default_merging(1.0 if options.postprocess_type else np.maximum(threshold, uniting))
    merging = replace(
        default,
        kind=options.postprocess_type or default.kind,
        metric=options.match_metric or default.metric,
        threshold=options.match_threshold,
        class_agnostic=options.class_agnostic,
    )
    whole = ", and the whole image" if options.standard_pred else ""
    log.info("Slices of %s%s, each at %s; %s", slices, whole, detector.info.size_rule, merging)
    return SlicedDetector(
        detector, slices, merging, whole_image=options.standard_pred, threshold=threshold, classes=classes,
        batch=batch or _BATCH, uniting=uniting,
    )  # fmt: skip


def _moved(found: Detections, window: Sequence[int], image: np.ndarray) -> Detections:
    """From the pixels of a window to those of its image; float64, where SAHI moves boxes."""
    height, width = image.shape[:2]
    boxes = found.boxes.astype(np.float64).clip(0, [width, height] * 2) + (window[:2] * 2)
    return Detections(boxes, found.scores, found.labels)
