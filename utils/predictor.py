"""Images in, Detections out: what every inference script runs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from utils.augmentation import Labelled, resize
from utils.batch import Sample, collate
from utils.detections import Detections
from utils.size_rule import SizeRule

_NO_BOXES, _NO_LABELS = np.empty((0, 4), np.float32), np.empty(0, np.int64)


class Predictor:
    """A detector with its size rule on its device."""

    def __init__(self, model: nn.Module, size_rule: SizeRule, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.size_rule = size_rule
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections, in original pixels, of (H, W, 3) uint8 RGB images of any sizes."""
        batch = collate([self._sample(image) for image in images])
        outputs = self.model(batch.to(self.device))
        return [Detections.from_output(output) for output in outputs]

    def _sample(self, image: np.ndarray) -> Sample:
        height, width = image.shape[:2]
        resized = resize(Labelled(image, _NO_BOXES, _NO_LABELS), *self.size_rule.network_size(height, width))
        return Sample(resized.image, (height, width), 0, resized.boxes, resized.labels)
