"""Test-time augmentation: one answer from six looks at an image."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from utils.loading.batch import Batch
from utils.loading.size_rule import padded

_SCALES = (0.8, 1.0, 1.2)


class SixViews(nn.Module):
    """A detector in eval mode that sees each image at 0.8, 1 and 1.2 times its network size, and mirrored.

    What all views found goes through the NMS of each class; the detector's own IoU and number of detections hold.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Per image a dict of boxes, labels and scores, as the detector has it."""
        views = []
        for scale in _SCALES:
            view = _scaled(batch, scale)
            views.append(self.detector(view))
            mirrored = self.detector(_mirrored(view))
            views.append([_mirrored_back(one, width) for one, (_, width) in zip(mirrored, _sizes(batch), strict=True)])
        return [self._merged(of_image) for of_image in zip(*views, strict=True)]

    def _merged(self, views: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        heads = self.detector.roi_heads
        together = {key: torch.cat([view[key] for view in views]) for key in ("boxes", "labels", "scores")}
        kept = batched_nms(together["boxes"], together["scores"], together["labels"], heads.nms_thresh)
        return {key: values[kept[: heads.detections_per_img]] for key, values in together.items()}


def _sizes(batch: Batch) -> list[list[int]]:
    return batch.original_sizes.tolist()


def _scaled(batch: Batch, scale: float) -> Batch:
    """The batch with images `scale` times as large; boxes, which only training reads, as they were."""
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


def _mirrored(batch: Batch) -> Batch:
    """Each image flipped left to right where it lies, its padding still to its right."""
    block = batch.images.clone()
    for slot, (height, width) in zip(block, batch.sizes.tolist(), strict=True):
        slot[:height, :width] = slot[:height, :width].flip(1)
    return replace(batch, images=block)


def _mirrored_back(found: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Detections of a mirrored image that is `width` original pixels wide."""
    x1, y1, x2, y2 = found["boxes"].unbind(1)
    return {**found, "boxes": torch.stack([width - x2, y1, width - x1, y2], 1)}
