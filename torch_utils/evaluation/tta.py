"""Test-time augmentation: detections merged over three scales and horizontal flips."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from utils.loading.batch import Batch
from utils.loading.size_rule import padded

_SCALES = (0.8, 1.0, 1.2)


class TTADetector(nn.Module):
    """Wrapper that runs a detector in eval mode on six views of each image and merges the results.

    The views have 0.8, 1 and 1.2 times the network size, each also flipped horizontally. Class-wise NMS merges their
    detections, with the detector's own IoU threshold and maximum number of detections.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Per image a dict of boxes, labels and scores, in the detector's format."""
        views = []
        for scale in _SCALES:
            view = _rescale(batch, scale)
            views.append(self.detector(view))
            flipped = self.detector(_flip(view))
            views.append([_unflip(output, width) for output, (_, width) in zip(flipped, _sizes(batch), strict=True)])
        return [self._merge(outputs) for outputs in zip(*views, strict=True)]

    def _merge(self, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        heads = self.detector.roi_heads
        merged = {key: torch.cat([output[key] for output in outputs]) for key in ("boxes", "labels", "scores")}
        kept = batched_nms(merged["boxes"], merged["scores"], merged["labels"], heads.nms_thresh)
        return {key: values[kept[: heads.detections_per_img]] for key, values in merged.items()}


def _sizes(batch: Batch) -> list[list[int]]:
    return batch.original_sizes.tolist()


def _rescale(batch: Batch, scale: float) -> Batch:
    """The batch with its images resized by `scale`; boxes are not scaled, since only training reads them."""
    if scale == 1:
        return batch
    sizes = (batch.sizes * scale).round().long().clamp(min=1)
    height, width = (padded(int(side)) for side in sizes.amax(0))
    block = batch.images.new_zeros(len(batch), height, width, 3)
    for image, slot, old, new in zip(batch.images, block, batch.sizes.tolist(), sizes.tolist(), strict=True):
        pixels = image[: old[0], : old[1]].permute(2, 0, 1)[None].float()
        resized = functional.interpolate(pixels, size=new, mode="bilinear", antialias=True)
        slot[: new[0], : new[1]] = resized[0].round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8)
    return replace(batch, images=block, sizes=sizes)


def _flip(batch: Batch) -> Batch:
    """The batch with each image flipped horizontally; its padding stays on the right."""
    block = batch.images.clone()
    for slot, (height, width) in zip(block, batch.sizes.tolist(), strict=True):
        slot[:height, :width] = slot[:height, :width].flip(1)
    return replace(batch, images=block)


def _unflip(output: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Detections of a flipped image, mapped back; `width` is that of the original image, in px."""
    x1, y1, x2, y2 = output["boxes"].unbind(1)
    return {**output, "boxes": torch.stack([width - x2, y1, width - x1, y2], 1)}
