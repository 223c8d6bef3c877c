"""The detector as one graph for ONNX: from uint8 images to final boxes, with shapes that do not depend on the image.

It shares modules and weights with the FasterRCNN that it is made of, and finds the same boxes. What differs is the
form: anchors are constants, choices are a top-k and a mask, and results are filled up to a fixed number.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.rcnn.boxes import clip_boxes, gather_rows, has_min_size, image_bounds
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.roi_heads import SMALLEST
from models.rcnn.roi_pool import SAMPLES, SIDE
from models.rcnn.rpn import SUPPRESSED_SCORE, by_anchor

INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels")
STRIDE = 32  # px, that sides of the block are multiples of


class OnnxGraph(nn.Module):
    """The detector in eval mode as a function of tensors alone.

    forward(images, sizes):
        images: (B, H, W, 3) uint8 RGB, each image at the top left; what is right of it and below does not matter.
        sizes: (B, 2) int64, height and width of each image in the block.
    Returns:
        boxes (B, N, 4) float32 x1 y1 x2 y2 in pixels of the block, scores (B, N) float32, labels (B, N) int64: of each
        image the detections, best first, filled up with zeros. N is the detections per image of the model.

    Args:
        model: in eval mode.
        size: height and width of the block, multiples of 32; None: any, and anchors are computed in the graph.

    Raises:
        ModelError: the block is no multiple of 32, or too small for the backbone.
    """

    def __init__(self, model: FasterRCNN, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model = model
        self.anchors = None if size is None else self._constant_anchors(*size)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        pixels = self._pixels(images, sizes)
        maps = self.model.backbone(pixels.to(self._dtype()))
        maps = {"0": maps} if isinstance(maps, Tensor) else maps
        bounds = image_bounds(sizes)
        proposals, are_proposals = self._propose(pixels, list(maps.values()), bounds)
        heads = self.model.roi_heads
        regions, rows = self._pool(maps, proposals, are_proposals)
        torch._check(regions.numel() > 0)  # which the exporter cannot know
        logits, deltas = heads.box_predictor(heads.box_head(regions.to(self._dtype())))
        boxes = heads.box_coder.decode_single(deltas, proposals.flatten(0, 1)[rows])
        image = rows.div(proposals.shape[1], rounding_mode="floor")
        boxes = torch.minimum(boxes.unflatten(1, (-1, 4)).clamp(min=0), bounds[image][:, None])
        scores = logits.softmax(-1)
        good = are_proposals.flatten()[rows]
        detections = [self._detections(boxes, scores, good & (image == i)) for i in range(len(images))]
        return tuple(torch.stack(part) for part in zip(*detections, strict=True))

    def halve(self) -> None:
        """Let backbone and heads compute in half precision; boxes, scores and what is done with them stay float32."""
        for part in (self.model.backbone, self.model.rpn.head, self.model.roi_heads.box_head):
            part.half()

    def _dtype(self) -> torch.dtype:
        return next(self.model.backbone.parameters()).dtype

    def _pixels(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, H, W) float32, mean and std applied, padding zero."""
        pixels = images.float() * self.model.pixel_scale + self.model.pixel_shift
        rows = torch.arange(images.shape[1], device=images.device) < sizes[:, :1]
        columns = torch.arange(images.shape[2], device=images.device) < sizes[:, 1:]
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]
        return torch.where(inside, pixels, 0.0).permute(0, 3, 1, 2)

    def _constant_anchors(self, height: int, width: int) -> nn.ParameterList:
        """Of each level (cells x anchors per cell, 4)."""
        if height % STRIDE or width % STRIDE:
            raise ModelError(f"a graph for {width} x {height} px: sides must be multiples of {STRIDE}")
        pixel = self.model.pixel_scale
        with torch.inference_mode():
            maps = self.model._run_backbone(torch.zeros(1, 3, height, width, device=pixel.device, dtype=self._dtype()))
        anchors = self._anchors((height, width), list(maps.values()))
        return nn.ParameterList(nn.Parameter(level, requires_grad=False) for level in anchors)

    def _anchors(self, size: tuple[int, int], maps: Sequence[Tensor]) -> list[Tensor]:
        return self.model.rpn.anchor_generator.compute(size, [m.shape[-2:] for m in maps], maps[0].device)

    def _propose(self, pixels: Tensor, maps: list[Tensor], bounds: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) of the P best proposals, and whether they are any, (B, P)."""
        rpn = self.model.rpn
        anchors = self._anchors(pixels.shape[2:], maps) if self.anchors is None else self.anchors
        boxes, scores = [], []
        for logits, deltas, of_level in zip(*rpn.head(maps), anchors, strict=True):
            level = by_anchor(logits, 1).squeeze(2), by_anchor(deltas, 4), of_level
            for into, value in zip((boxes, scores), self._propose_in_level(*level, bounds), strict=True):
                into.append(value)
        boxes, scores = torch.cat(boxes, 1), torch.cat(scores, 1)
        scores, best = scores.topk(min(rpn.post_nms_top_n(), scores.shape[1]))
        return gather_rows(boxes, best), scores > SUPPRESSED_SCORE

    def _propose_in_level(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, bounds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, K, 4) and scores (B, K) of the best anchors of a map; dropped ones score SUPPRESSED_SCORE."""
        rpn = self.model.rpn
        count = rpn.pre_nms_top_n()
        if self.anchors is None:  # as many cells as there may be, there are enough to choose from
            logits = nn.functional.pad(logits, (0, count), value=-math.inf)
            deltas = nn.functional.pad(deltas, (0, 0, 0, count))
            anchors = nn.functional.pad(anchors, (0, 0, 0, count))
        else:
            count = min(count, logits.shape[1])
        logits, best = logits.topk(count)
        deltas = gather_rows(deltas, best)
        boxes = rpn.box_coder.decode_single(deltas.flatten(0, 1), anchors[best].flatten(0, 1)).reshape(deltas.shape)
        boxes = clip_boxes(boxes, bounds)
        scores = logits.sigmoid()
        good = has_min_size(boxes, rpn.min_size) & (scores >= rpn.score_thresh) & (logits > -math.inf)
        scores = torch.where(good, scores, SUPPRESSED_SCORE)
        kept = [_kept(*of_image, rpn.nms_thresh) for of_image in zip(boxes.unbind(), scores.unbind(), strict=True)]
        return boxes, torch.where(torch.stack(kept), scores, SUPPRESSED_SCORE)

    def _pool(self, maps: dict[str, Tensor], proposals: Tensor, are_proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals of all images, each pooled from the map of its size, map by map.

        Returns:
            (R, C, 7, 7) float32, and the rows (R,) of `proposals`, flattened over the images, that they are. The very
            first is among them in any case, as not every runtime can compute with nothing.
        """
        pool = self.model.roi_heads.box_roi_pool
        count = proposals.shape[1]
        images = torch.arange(len(proposals), device=proposals.device, dtype=proposals.dtype).repeat_interleave(count)
        regions = torch.cat([images[:, None], proposals.flatten(0, 1)], 1)
        wanted = are_proposals.flatten() | (torch.arange(len(regions), device=regions.device) == 0)
        levels = pool.map_levels([proposals.flatten(0, 1)]) if len(pool.scales) > 1 else torch.zeros_like(wanted)
        rows, pooled = [], []
        for level, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales, strict=True)):
            of_level_rows = (wanted & (levels == level)).nonzero().squeeze(1)
            shape = SIDE, SIDE, SAMPLES, False
            pooled.append(torch.ops.torchvision.roi_align(maps[name].float(), regions[of_level_rows], scale, *shape))
            rows.append(of_level_rows)
        return torch.cat(pooled), torch.cat(rows)

    def _detections(self, boxes: Tensor, scores: Tensor, of_image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), labels (N,) of one image; `of_image` (R,) says which regions are proposals of it.

        boxes: (R, classes, 4).
        scores: (R, classes).
        """
        heads = self.model.roi_heads
        boxes, scores = boxes[:, 1:], scores[:, 1:]  # without the background
        count, classes = scores.shape
        good = has_min_size(boxes, SMALLEST) & (scores > heads.score_thresh) & of_image[:, None]
        labels = torch.arange(classes, device=boxes.device).expand(count, classes).flatten()
        boxes = torch.cat([boxes.flatten(0, 1), boxes.new_zeros(1, 4)])  # the last row fills up
        scores = torch.cat([scores.flatten(), scores.new_zeros(1)])
        labels = torch.cat([labels + 1, labels.new_zeros(1)])

        indices = good.flatten().nonzero().squeeze(1)
        kept = _nms_by_class(boxes[indices], scores[indices], labels[indices] - 1, classes, heads.nms_thresh)
        filling = indices.new_full((heads.detections_per_img,), count * classes)
        chosen = torch.cat([indices[kept], filling])[: heads.detections_per_img]
        return boxes[chosen], scores[chosen], labels[chosen]


def _kept(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """(K,) bool: the (K, 4) boxes that NMS keeps; boxes with the lowest score suppress no others."""
    kept = torch.ops.torchvision.nms(boxes, scores, threshold)
    return torch.zeros_like(scores).scatter(0, kept, torch.ones_like(kept, dtype=scores.dtype)) > 0


def _nms_by_class(boxes: Tensor, scores: Tensor, classes: Tensor, count: int, threshold: float) -> Tensor:
    """Indices that non-maximum suppression within each class keeps, best first.

    Boxes of different classes are moved apart, to cells of a grid: in a row, large numbers would cost them digits.
    """
    columns = math.isqrt(count - 1) + 1 if count else 1
    cell = torch.stack([classes % columns, classes.div(columns, rounding_mode="floor")], 1).to(boxes)
    largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    return torch.ops.torchvision.nms(boxes + (cell * (largest + 1)).repeat(1, 2), scores, threshold)
