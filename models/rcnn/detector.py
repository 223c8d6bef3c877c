"""Our Faster R-CNN: torchvision's network, state-dict keys and results, fed with uint8 batches."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import resize_boxes


class UintBatch(Protocol):
    """What the detector reads of a batch; docs/architecture.md describes the form."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, H and W multiples of 32, each image at the top left
    sizes: Tensor  # (B, 2) int64 on the host, height and width of each image in the block
    original_sizes: Tensor  # (B, 2) int64 on the host, before the resize
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in pixels of the block
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64 on the host


class Float32RPNHead(RPNHead):
    """The RPN's head with results in fp32 inside autocast: boxes decoded from half precision are pixels off."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See RPNHead."""
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class Float32Predictor(FastRCNNPredictor):
    """The box predictor with results in fp32 inside autocast."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See FastRCNNPredictor."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class FasterRCNN(TorchvisionFasterRCNN):
    """Faster R-CNN (Ren et al. 2015, https://arxiv.org/abs/1506.01497) on any backbone.

    Called with a uint8 batch, whose images have their network size already:
        in training: a dict of the four losses, float32 scalars: loss_classifier, loss_box_reg, loss_objectness,
        loss_rpn_box_reg;
        in eval mode: per image a dict of boxes (N, 4) float32 x1 y1 x2 y2 in *original* pixels, labels (N,) int64 and
        scores (N,) float32, best first.
    Called with a list of float (3, H, W) images in 0..1, and targets in training, it is torchvision's FasterRCNN:
    min_size, max_size and fixed_size of its transform apply.
    """

    def __init__(self, backbone: nn.Module, **torchvision_options: object) -> None:
        super().__init__(backbone, **torchvision_options)
        mean, std = (torch.tensor(values) for values in (self.transform.image_mean, self.transform.image_std))
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(
        self, images: UintBatch | Sequence[Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, detections otherwise; see the class."""
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        batch: UintBatch = images
        sizes = [tuple(size) for size in batch.sizes.tolist()]
        image_list = ImageList(self._normalise(batch.images, sizes), sizes)
        features = self.backbone(image_list.tensors)
        if isinstance(features, Tensor):
            features = OrderedDict([("0", features)])
        truth = _targets(batch) if self.training else None
        proposals, rpn_losses = self.rpn(image_list, features, truth)
        detections, roi_losses = self.roi_heads(features, proposals, sizes, truth)
        if self.training:
            return {**roi_losses, **rpn_losses}
        for detected, size, original_size in zip(detections, sizes, batch.original_sizes.tolist(), strict=True):
            detected["boxes"] = resize_boxes(detected["boxes"], size, original_size)
        return detections

    def _normalise(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels-last memory, mean and std applied, padding zero."""
        pixels = torch.addcmul(self.pixel_shift, images.float(), self.pixel_scale)
        for image, (height, width) in zip(pixels, sizes, strict=True):
            image[height:] = 0
            image[:, width:] = 0
        return pixels.permute(0, 3, 1, 2)


def _targets(batch: UintBatch) -> list[dict[str, Tensor]]:
    counts = batch.counts.tolist()
    pairs = zip(batch.boxes.split(counts), batch.labels.split(counts), strict=True)
    return [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]
