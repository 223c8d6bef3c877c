"""Assignment of objects to anchors and proposals, for all images at once."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from models.rcnn.boxes import iou
from models.rcnn.structures import GroundTruth

_MOST_PAIRS = 2**25  # of boxes and objects at once: a few tensors of 128 MiB


def match_boxes(boxes: Tensor, truth: GroundTruth, rule: Matcher) -> Tensor:
    """Match boxes with objects as torchvision's Matcher does image by image, to the bit.

    Args:
        boxes: (N, 4), the same for all images, or (B, N, 4).

    Returns:
        (B, N) int64: the index of the object in its image, or rule.BELOW_LOW_THRESHOLD, or rule.BETWEEN_THRESHOLDS.
        Without objects all are below.
    """
    count, slots = truth.valid.shape
    boxes = boxes.expand(count, -1, -1)
    some = max(1, _MOST_PAIRS // max(1, slots * boxes.shape[1]))
    parts = zip(boxes.split(some), truth.boxes.split(some), truth.valid.split(some), strict=True)
    return torch.cat([_match_boxes(*part, rule) for part in parts])


def _match_boxes(boxes: Tensor, objects: Tensor, valid: Tensor, rule: Matcher) -> Tensor:
    quality = iou(objects, boxes).masked_fill_(~valid[..., None], -1)
    best, which = quality.max(1)
    match = which.masked_fill(best < rule.high_threshold, rule.BETWEEN_THRESHOLDS)
    match.masked_fill_(best < rule.low_threshold, rule.BELOW_LOW_THRESHOLD)
    if not rule.allow_low_quality_matches:
        return match
    is_best = quality == quality.amax(2, keepdim=True)  # of its object, ties included
    return torch.where((is_best & valid[..., None]).any(1), which, match)
