"""torchvision's own Faster R-CNN around the layers of a detector: the reference for results and speed."""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models.rcnn.layers import ClassAgnosticPredictor, LinearHead
from models.rcnn.roi_pool import SAMPLES, SIDE
from models.rcnn.structures import UintBatch

Part = TypeVar("Part", bound=nn.Module)


class StockFasterRCNN(GeneralizedRCNN):
    """torchvision's detector, which takes our uint8 batches too: its network sees the same pixels then."""

    def forward(
        self, images: UintBatch | Sequence[Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """As FasterRCNN: losses in training, detections in original pixels otherwise."""
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        resize, self.transform.resize = self.transform.resize, lambda image, target: (image, target)
        try:
            found = super().forward(float_images(images), targets_of(images) if self.training else None)
        finally:
            self.transform.resize = resize
        return found if self.training else self.transform.postprocess(found, *_sizes(images))


def as_torchvision(detector: GeneralizedRCNN) -> StockFasterRCNN:
    """The same layers, not copies, in torchvision's own modules; a classifier loss of one's own is not among them."""
    rpn, heads = (copy.copy(part) for part in (detector.rpn, detector.roi_heads))
    rpn.__class__, heads.__class__ = RegionProposalNetwork, RoIHeads
    for part in (rpn, heads):
        part._modules = dict(part._modules)
        part.box_coder = BoxCoder(part.box_coder.weights, part.box_coder.bbox_xform_clip)
    rpn.anchor_generator = AnchorGenerator(rpn.anchor_generator.sizes, rpn.anchor_generator.aspect_ratios)
    rpn.head = _as(RPNHead, rpn.head)
    heads.box_roi_pool = stock_pool(heads.box_roi_pool)
    if isinstance(heads.box_head, LinearHead):
        heads.box_head = _as(TwoMLPHead, heads.box_head)
    if not isinstance(heads.box_predictor, ClassAgnosticPredictor):
        heads.box_predictor = _as(FastRCNNPredictor, heads.box_predictor)
    twin = StockFasterRCNN(detector.backbone, rpn, heads, copy.copy(detector.transform))
    twin.training = detector.training  # its parts have their own modes
    return twin


def stock_pool(ours: MultiScaleRoIAlign) -> MultiScaleRoIAlign:
    """torchvision's pooling with the strides that ours knows."""
    pool = MultiScaleRoIAlign(ours.featmap_names, SIDE, SAMPLES)
    pool.scales, pool.map_levels = ours.scales, ours.map_levels
    return pool


def float_images(batch: UintBatch) -> list[Tensor]:
    """torchvision's form of the images: (3, H, W) float32 in 0..1."""
    pairs = zip(batch.images, batch.sizes.tolist(), strict=True)
    return [image[:height, :width].permute(2, 0, 1).float() / 255 for image, (height, width) in pairs]


def targets_of(batch: UintBatch) -> list[dict[str, Tensor]]:
    """torchvision's form of the objects."""
    counts = batch.counts.tolist()
    pairs = zip(batch.boxes.split(counts), batch.labels.split(counts), strict=True)
    return [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]


def _as(kind: type[Part], module: nn.Module) -> Part:
    twin = copy.copy(module)
    twin.__class__ = kind
    return twin


def _sizes(batch: UintBatch) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return tuple([tuple(size) for size in sizes.tolist()] for sizes in (batch.sizes, batch.original_sizes))
