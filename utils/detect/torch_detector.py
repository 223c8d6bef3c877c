"""Detector that runs a PyTorch model."""

from collections.abc import Callable

import torch
from torch import nn

from utils.detect.detections import Detections
from utils.detect.detector import BatchDetector, DetectorInfo
from utils.loading.batch import Batch


class TorchDetector(BatchDetector):
    """A FasterRCNN on its device.

    Args:
        detect: called with a batch on the host instead of the model, such as a CUDA graph of it.
    """

    def __init__(
        self,
        model: nn.Module,
        info: DetectorInfo,
        device: torch.device,
        *,
        detect: Callable[[Batch], list[dict[str, torch.Tensor]]] | None = None,
    ) -> None:
        super().__init__(info)
        self.model = model.to(device).eval()
        self.device = device
        self._detect = detect or (lambda batch: self.model(batch.to(device)))

    @torch.inference_mode()
    def detect_batch(self, batch: Batch) -> list[Detections]:
        """See BatchDetector."""
        return [Detections.from_output(output) for output in self._detect(batch)]
