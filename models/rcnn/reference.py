"""torchvision's own Faster R-CNN around the layers of a detector: the reference for results and speed."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models.rcnn.layers import ClassAgnosticPredictor, LinearHead
from models.rcnn.roi_heads import BatchedRoIHeads
from models.rcnn.roi_pool import SAMPLES, SIDE
from models.rcnn.rpn import BatchedRPN
from models.rcnn.structures import UintBatch

Layers = TypeVar("Layers", bound=nn.Module)


class ReferenceFasterRCNN(GeneralizedRCNN):
    """torchvision's detector, which also takes our uint8 batches and then reads the same pixels."""

    def forward(
        self, images: UintBatch | Sequence[Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """As FasterRCNN: losses in training, detections in original pixels otherwise."""
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        resize, self.transform.resize = self.transform.resize, lambda image, target: (image, target)
        try:
            detections = super().forward(float_images(images), targets_of(images) if self.training else None)
        finally:
            self.transform.resize = resize
        return detections if self.training else self.transform.postprocess(detections, *_sizes(images))


def as_torchvision(detector: GeneralizedRCNN) -> ReferenceFasterRCNN:
    """Build torchvision's modules around the same layers, which are not copied; a classifier loss is left out."""
    twin = ReferenceFasterRCNN(
        detector.backbone, _rpn(detector.rpn), _roi_heads(detector.roi_heads), copy.copy(detector.transform)
    )
    twin.training = detector.training  # its layers have their own modes
    return twin


def _rpn(ours: BatchedRPN) -> RegionProposalNetwork:
    twin = RegionProposalNetwork(
        AnchorGenerator(ours.anchor_generator.sizes, ours.anchor_generator.aspect_ratios),
        _with_layers_of(ours.head, lambda: RPNHead(1, 1)),
        ours.proposal_matcher.high_threshold,
        ours.proposal_matcher.low_threshold,
        ours.fg_bg_sampler.batch_size_per_image,
        ours.fg_bg_sampler.positive_fraction,
        ours._pre_nms_top_n,
        ours._post_nms_top_n,
        ours.nms_thresh,
        ours.score_thresh,
    )
    twin.box_coder = BoxCoder(ours.box_coder.weights, ours.box_coder.bbox_xform_clip)
    twin.min_size, twin.training = ours.min_size, ours.training
    return twin


def _roi_heads(ours: BatchedRoIHeads) -> RoIHeads:
    head, predictor = ours.box_head, ours.box_predictor
    if isinstance(head, LinearHead):
        head = _with_layers_of(head, lambda: TwoMLPHead(1, 1))
    if not isinstance(predictor, ClassAgnosticPredictor):
        predictor = _with_layers_of(predictor, lambda: FastRCNNPredictor(1, 1))
    twin = RoIHeads(
        reference_pool(ours.box_roi_pool),
        head,
        predictor,
        ours.proposal_matcher.high_threshold,
        ours.proposal_matcher.low_threshold,
        ours.fg_bg_sampler.batch_size_per_image,
        ours.fg_bg_sampler.positive_fraction,
        ours.box_coder.weights,
        ours.score_thresh,
        ours.nms_thresh,
        ours.detections_per_img,
    )
    twin.box_coder.bbox_xform_clip = ours.box_coder.bbox_xform_clip
    twin.training = ours.training
    return twin


def reference_pool(ours: MultiScaleRoIAlign) -> MultiScaleRoIAlign:
    """torchvision's pooling with our declared strides."""
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


def _with_layers_of(ours: nn.Module, build: Callable[[], Layers]) -> Layers:
    """torchvision's module of `build`, with our layers in place of its own."""
    with torch.device("meta"):  # without memory and random numbers
        twin = build()
    for name, layer in ours.named_children():
        setattr(twin, name, layer)
    twin.training = ours.training
    return twin


def _sizes(batch: UintBatch) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return tuple([tuple(size) for size in sizes.tolist()] for sizes in (batch.sizes, batch.original_sizes))
