"""The region proposal network for a whole batch, with torchvision's parameters, keys and results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from models.rcnn import sampling
from models.rcnn.anchors import Float32Anchors
from models.rcnn.boxes import BatchedBoxCoder, clip_boxes, gather_rows, has_min_size, image_bounds
from models.rcnn.matching import match_boxes
from models.rcnn.nms import batched_nms
from models.rcnn.structures import GroundTruth, PaddedBoxes

SUPPRESSED_SCORE = -1.0  # of boxes that NMS or the size limit dropped


@dataclass(frozen=True)
class RPNOutput:
    """Predictions of the RPN for every anchor, map by map."""

    logits: Sequence[Tensor]  # (B, A)
    deltas: Sequence[Tensor]  # (B, A, 4)
    anchors: Sequence[Tensor]  # (A, 4)


class BatchedRPN(RegionProposalNetwork):
    """torchvision's RPN, with only the best anchors of a map decoded, and losses over all images at once.

    In training every image has at least one proposal, if need be the whole image: the box head's losses are means over
    proposals. forward() has torchvision's signature.

    Args:
        anchor_generator: of the anchors of all maps.
        head: maps -> logits and deltas of their anchors.
        pre_nms_top_n_train, ...: the arguments rpn_... of torchvision's FasterRCNN, with the same defaults.

    static_shapes: shapes depend on shapes alone; None: everywhere but on a CPU.
    """

    static_shapes: bool | None = None

    def __init__(
        self,
        anchor_generator: Float32Anchors,
        head: RPNHead,
        *,
        pre_nms_top_n_train: int = 2000,
        pre_nms_top_n_test: int = 1000,
        post_nms_top_n_train: int = 2000,
        post_nms_top_n_test: int = 1000,
        nms_thresh: float = 0.7,
        fg_iou_thresh: float = 0.7,
        bg_iou_thresh: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        score_thresh: float = 0.0,
    ) -> None:
        super().__init__(
            anchor_generator,
            head,
            fg_iou_thresh,
            bg_iou_thresh,
            batch_size_per_image,
            positive_fraction,
            {"training": pre_nms_top_n_train, "testing": pre_nms_top_n_test},
            {"training": post_nms_top_n_train, "testing": post_nms_top_n_test},
            nms_thresh,
            score_thresh,
        )
        self.box_coder = BatchedBoxCoder(self.box_coder.weights, self.box_coder.bbox_xform_clip)

    def forward(
        self, images: ImageList, features: Mapping[str, Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """See RegionProposalNetwork."""
        rpn_output = self.predict(images.tensors.shape[2:], features)
        sizes = torch.tensor(images.image_sizes, device=images.tensors.device)
        proposals = self.proposals(rpn_output, image_bounds(sizes))
        if not self.training:
            return proposals.lists(), {}
        return proposals.lists(), self.losses(rpn_output, GroundTruth.of_targets(targets), sampling.random_priorities)

    def predict(self, size: Sequence[int], features: Mapping[str, Tensor]) -> RPNOutput:
        """Predictions from the maps of a batch of this padded height and width."""
        maps = list(features.values())
        logits, deltas = self.head(maps)
        return RPNOutput(
            [by_anchor(level, 1).squeeze(2) for level in logits],
            [by_anchor(level, 4) for level in deltas],
            self.anchor_generator.for_batch(size, maps),
        )

    @torch.no_grad()
    def proposals(self, rpn_output: RPNOutput, bounds: Tensor) -> PaddedBoxes:
        """The best boxes of each image, best first; `bounds` (B, 4) as image_bounds() returns them."""
        static_shapes = shapes_are_static(self.static_shapes, bounds)
        levels = zip(rpn_output.logits, rpn_output.deltas, rpn_output.anchors, strict=True)
        best = [self._top_anchors(*level, pad=static_shapes and len(rpn_output.logits) > 1) for level in levels]
        logits, deltas, anchors = (torch.cat(parts, 1) for parts in zip(*best, strict=True))
        boxes = self.box_coder.decode_single(deltas.flatten(0, 1), anchors.flatten(0, 1)).view_as(deltas)
        boxes, scores = clip_boxes(boxes, bounds), logits.sigmoid()
        valid = has_min_size(boxes, self.min_size) & (scores >= self.score_thresh)
        if static_shapes:
            regions = self._nms_padded(boxes, scores, valid & (logits > -torch.inf), len(best))
        else:
            regions = self._nms_per_image(boxes, scores, valid, [level.shape[1] for level, _, _ in best])
        return regions.fill_empty(bounds) if self.training else regions

    def losses(
        self, rpn_output: RPNOutput, truth: GroundTruth, priorities: sampling.Priorities, *, per_image: bool = False
    ) -> dict[str, Tensor]:
        """Objectness and box regression losses, means over the sampled anchors.

        Args:
            per_image: losses of each image, (B,), instead of the batch, ().
        """
        anchors = torch.cat(list(rpn_output.anchors))
        with torch.no_grad():
            match = match_boxes(anchors, truth, self.proposal_matcher)
            labels = (match >= 0).float().masked_fill_(match == self.proposal_matcher.BETWEEN_THRESHOLDS, -1)
            sample = sampling.sample_balanced(labels, self.fg_bg_sampler, priorities(labels, [len(anchors)]))
            matched_boxes = gather_rows(truth.boxes, gather_rows(match, sample.index).clamp(min=0))
            targets = self.box_coder.encode_single(matched_boxes.flatten(0, 1), anchors[sample.index].flatten(0, 1))
            targets = torch.where(sample.positive[..., None], targets.view_as(matched_boxes), 0)
        logits = gather_rows(torch.cat(list(rpn_output.logits), 1), sample.index)
        deltas = gather_rows(torch.cat(list(rpn_output.deltas), 1), sample.index)
        objectness = F.binary_cross_entropy_with_logits(logits, sample.positive.float(), reduction="none")
        regression = F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="none").sum(2)
        terms = {
            "loss_objectness": objectness * sample.sampled,
            "loss_rpn_box_reg": regression * sample.positive,
        }
        over = 1 if per_image else (0, 1)
        count = sample.sampled.sum(over)
        return {name: each.sum(over) / count for name, each in terms.items()}

    def _top_anchors(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, *, pad: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), deltas (B, K, 4) and anchors (B, K, 4) of the best anchors of a map, best first.

        With `pad`, K is the same for all maps; logits without an anchor are minus infinity.
        """
        most = self.pre_nms_top_n()
        logits, best = logits.topk(min(most, logits.shape[1]))
        if pad and (missing := most - best.shape[1]):
            logits, best = F.pad(logits, (0, missing), value=-torch.inf), F.pad(best, (0, missing))
        return logits, gather_rows(deltas, best), anchors[best]

    def _nms_padded(self, boxes: Tensor, scores: Tensor, valid: Tensor, levels: int) -> PaddedBoxes:
        """Suppress in all images and maps at once: (B, P, 4), where P does not depend on the boxes."""
        sets = len(boxes) * levels
        kept = batched_nms(boxes.reshape(sets, -1, 4), valid.reshape(sets, -1), self.nms_thresh).reshape(valid.shape)
        scores = torch.where(kept, scores, SUPPRESSED_SCORE)
        scores, best = scores.sort(dim=1, descending=True, stable=True)  # scores of exactly 1 are common
        most = self.post_nms_top_n()
        return PaddedBoxes(gather_rows(boxes, best[:, :most]), scores[:, :most] > SUPPRESSED_SCORE)

    def _nms_per_image(self, boxes: Tensor, scores: Tensor, valid: Tensor, counts: list[int]) -> PaddedBoxes:
        """Suppress image by image, as torchvision does: P is the largest number of any image."""
        levels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        proposals = []
        for image_boxes, image_scores, mask in zip(boxes, scores, valid, strict=True):
            image_boxes, image_scores = image_boxes[mask], image_scores[mask]
            kept = torchvision.ops.boxes.batched_nms(image_boxes, image_scores, levels[mask], self.nms_thresh)
            proposals.append(image_boxes[kept[: self.post_nms_top_n()]])
        return PaddedBoxes.of_lists(proposals)


def by_anchor(values: Tensor, channels: int) -> Tensor:
    """(B, A channels, H, W) -> (B, H W A, channels), in the order of anchors; no copy of channels-last maps."""
    return values.permute(0, 2, 3, 1).reshape(len(values), -1, channels)


def shapes_are_static(choice: bool | None, like: Tensor) -> bool:
    """Whether shapes must depend on shapes alone: by choice, or everywhere but on a CPU."""
    return like.device.type != "cpu" if choice is None else choice
