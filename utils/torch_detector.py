"""A detector that PyTorch runs."""

import torch
from torch import nn

from utils.batch import Batch
from utils.detections import Detections
from utils.detector import BatchDetector, DetectorFacts


class TorchDetector(BatchDetector):
    """A FasterRCNN on its device."""

    def __init__(self, model: nn.Module, facts: DetectorFacts, device: torch.device) -> None:
        super().__init__(facts)
        self.model = model.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def detect_batch(self, batch: Batch) -> list[Detections]:
        """See BatchDetector."""
        return [Detections.from_output(output) for output in self.model(batch.to(self.device))]
