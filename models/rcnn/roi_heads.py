"""The RoI heads for a whole batch, with torchvision's parameters, keys and results."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from models.rcnn import sampling
from models.rcnn.boxes import BatchedBoxCoder, clip_boxes, gather_rows, has_min_size, image_bounds
from models.rcnn.losses import ClassifierLoss
from models.rcnn.matching import match_boxes
from models.rcnn.nms import batched_nms
from models.rcnn.rpn import shapes_are_static
from models.rcnn.structures import GroundTruth, PaddedBoxes

SMALLEST = 1e-2  # px, sides of a detection, as torchvision's postprocess_detections has it
Sizes = list[tuple[int, int]]


@dataclass(frozen=True)
class SampledProposals:
    """Proposals that enter the loss, with the targets of the box predictor."""

    regions: PaddedBoxes
    labels: Tensor  # (B, S) int64, 0 for padding
    targets: Tensor  # (B, S, 4) encoded boxes, 0 for the background and padding
    sample: sampling.SampledIndices  # of the proposals and the boxes added to them


class BatchedRoIHeads(RoIHeads):
    """torchvision's RoI heads for all images at once, which in eval mode can compute the losses of training as well.

    forward() has torchvision's signature.

    Args:
        roi_pool, head, predictor: layers.
        score_thresh, ...: the arguments box_... of torchvision's FasterRCNN, with the same defaults.
        reg_weights: bbox_reg_weights of torchvision's FasterRCNN.
        classifier_loss: instead of cross entropy.

    static_shapes: shapes depend on shapes alone; None: everywhere but on a CPU.
    """

    static_shapes: bool | None = None

    def __init__(
        self,
        roi_pool: MultiScaleRoIAlign,
        head: nn.Module,
        predictor: nn.Module,
        *,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 100,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.5,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        reg_weights: tuple[float, float, float, float] | None = None,
        classifier_loss: ClassifierLoss | None = None,
    ) -> None:
        super().__init__(
            roi_pool,
            head,
            predictor,
            fg_iou_thresh,
            bg_iou_thresh,
            batch_size_per_image,
            positive_fraction,
            reg_weights,
            score_thresh,
            nms_thresh,
            detections_per_img,
        )
        self.box_coder = BatchedBoxCoder(self.box_coder.weights, self.box_coder.bbox_xform_clip)
        self.classifier_loss = classifier_loss

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: list[Mapping[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """See RoIHeads."""
        regions = PaddedBoxes.of_lists(proposals)
        if self.training:
            return [], self.losses(features, regions, GroundTruth.of_targets(targets), image_shapes)
        bounds = image_bounds(torch.tensor(image_shapes, device=regions.boxes.device))
        detections = self.detect(features, regions, bounds, image_shapes)
        return [{key: value.to(bounds.device) for key, value in each.items()} for each in detections], {}

    def losses(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, truth: GroundTruth, sizes: Sizes
    ) -> dict[str, Tensor]:
        """Classifier and box regression losses of training; ground-truth boxes are added to the proposals."""
        sampled = self.sample_proposals(proposals, truth, truth, sampling.random_priorities)
        logits, deltas = self.predict(features, sampled.regions, sizes)
        valid = sampled.regions.valid.flatten()
        rows = slice(None) if self._shapes_are_static(valid) else valid
        labels, targets = sampled.labels.flatten()[rows], sampled.targets.flatten(0, 1)[rows]
        classifier, regression = self.losses_per_proposal(logits, deltas, labels, targets)
        count = valid.sum()
        return {
            "loss_classifier": (classifier * valid[rows]).sum() / count,
            "loss_box_reg": regression.sum() / count,
        }

    def losses_per_proposal(
        self, logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Classifier and box regression losses of each of N proposals, (N,).

        Args:
            logits, deltas: (N, classes) and (N, 4 classes), predictions.
            labels, targets: (N,) int64 and (N, 4) encoded boxes, targets.
        """
        label_deltas = deltas.unflatten(1, (-1, 4)).gather(1, labels[:, None, None].expand(-1, 1, 4)).squeeze(1)
        regression = F.smooth_l1_loss(label_deltas, targets, beta=1 / 9, reduction="none").sum(1)
        return self.classifier_losses(logits, labels), regression * (labels > 0)

    def classifier_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Classifier loss of each of N proposals, (N,); logits (N, classes), labels (N,) int64."""
        if self.classifier_loss is not None:
            return self.classifier_loss.per_proposal(logits, labels)
        return F.cross_entropy(logits, labels, reduction="none")

    @torch.no_grad()
    def sample_proposals(
        self, proposals: PaddedBoxes, added: PaddedBoxes, truth: GroundTruth, priorities: sampling.Priorities
    ) -> SampledProposals:
        """Sample positives and negatives from proposals and added boxes, and match them with ground truth."""
        joined = proposals.joined(added)
        match = match_boxes(joined.boxes, truth, self.proposal_matcher)
        matched = match.clamp(min=0)
        labels = truth.labels.gather(1, matched).masked_fill_(match == self.proposal_matcher.BELOW_LOW_THRESHOLD, 0)
        between = match == self.proposal_matcher.BETWEEN_THRESHOLDS
        labels.masked_fill_(between | ~joined.valid, -1)
        sample = sampling.sample_balanced(
            labels, self.fg_bg_sampler, priorities(labels, [proposals.valid.shape[1], added.valid.shape[1]])
        )
        boxes = gather_rows(joined.boxes, sample.index)
        matched_boxes = gather_rows(truth.boxes, matched.gather(1, sample.index))
        targets = self.box_coder.encode_single(matched_boxes.flatten(0, 1), boxes.flatten(0, 1)).view_as(boxes)
        return SampledProposals(
            PaddedBoxes(boxes, sample.sampled),
            torch.where(sample.sampled, labels.gather(1, sample.index), 0),
            torch.where(sample.positive[..., None], targets, 0),
            sample,
        )

    def predict(self, features: Mapping[str, Tensor], regions: PaddedBoxes, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Logits (R, classes) and deltas (R, 4 classes) of the regions of all images.

        R is B P where shapes are static, otherwise the number of valid regions.
        """
        boxes = regions if self._shapes_are_static(regions.boxes) else regions.lists()
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))

    def detect(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, bounds: Tensor, sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        """Per image a dict of boxes, labels and scores on the host, best first; a GPU's come in one copy."""
        return self._postprocess(*self.predict(features, proposals, sizes), proposals, bounds, sizes)

    def detect_and_measure(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, truth: GroundTruth, bounds: Tensor, sizes: Sizes
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """The results of detect(), and the training losses of each image, (B,) float32.

        As in training, ground-truth boxes join the proposals for the losses; sampling depends on the image alone.
        """
        predicted = self.predict(features, proposals, sizes)
        added = self._objects_or_image(proposals, truth, bounds)
        more = self.predict(features, added, sizes)
        logits, deltas = (
            torch.cat([self._in_block(one, proposals), self._in_block(other, added)], 1)
            for one, other in zip(predicted, more, strict=True)
        )
        sampled = self.sample_proposals(proposals, added, truth, sampling.fixed_priorities)
        chosen = (gather_rows(block, sampled.sample.index).flatten(0, 1) for block in (logits, deltas))
        terms = self.losses_per_proposal(*chosen, sampled.labels.flatten(), sampled.targets.flatten(0, 1))
        taken = sampled.sample.sampled
        means = ((each.view_as(taken) * taken).sum(1) / taken.sum(1) for each in terms)
        losses = dict(zip(("loss_classifier", "loss_box_reg"), means, strict=True))
        # Last, because the host waits for the detections.
        return self._postprocess(*predicted, proposals, bounds, sizes), losses

    def _objects_or_image(self, proposals: PaddedBoxes, truth: GroundTruth, bounds: Tensor) -> PaddedBoxes:
        """The objects; for an image with neither objects nor proposals, the whole image."""
        both = PaddedBoxes(truth.boxes, truth.valid | proposals.valid.any(1, keepdim=True))
        filled = both.fill_empty(bounds)
        return PaddedBoxes(filled.boxes, truth.valid | (filled.valid & ~both.valid))

    def _in_block(self, values: Tensor, regions: PaddedBoxes) -> Tensor:
        """Predictions for regions as (B, P, ...); 0 for padding."""
        if self._shapes_are_static(values):
            return values.unflatten(0, regions.valid.shape)
        block = values.new_zeros(*regions.valid.shape, *values.shape[1:])
        block[regions.valid] = values
        return block

    def _postprocess(
        self, logits: Tensor, deltas: Tensor, proposals: PaddedBoxes, bounds: Tensor, sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        if not self._shapes_are_static(logits):
            results = self.postprocess_detections(logits, deltas, proposals.lists(), sizes)
            return [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*results, strict=True)]
        return unpad_detections(self.detect_padded(logits, deltas, proposals, bounds))

    def detect_padded(self, logits: Tensor, deltas: Tensor, proposals: PaddedBoxes, bounds: Tensor) -> Tensor:
        """Detections (B, D, 6) float32 x1 y1 x2 y2 score label, best first; rows with scores below 0 are padding.

        logits, deltas: (B P, classes) and (B P, 4 classes).
        """
        valid = proposals.valid
        boxes = self.box_coder.decode_single(deltas, proposals.boxes.flatten(0, 1)).unflatten(1, (-1, 4))
        boxes = clip_boxes(boxes.unflatten(0, valid.shape), bounds)[:, :, 1:].transpose(1, 2)  # (B, classes - 1, P, 4)
        scores = logits.softmax(-1).unflatten(0, valid.shape)[..., 1:].transpose(1, 2)
        good = has_min_size(boxes, SMALLEST) & (scores > self.score_thresh) & valid[:, None]
        scores, order = torch.where(good, scores, -1).sort(dim=-1, descending=True, stable=True)
        boxes = boxes.gather(2, order[..., None].expand(-1, -1, -1, 4))
        kept = batched_nms(boxes.flatten(0, 1), (scores >= 0).flatten(0, 1), self.nms_thresh).view_as(scores)
        scores = torch.where(kept, scores, -1).flatten(1)
        scores, best = scores.topk(min(self.detections_per_img, scores.shape[1]))
        labels = best.div(valid.shape[1], rounding_mode="floor") + 1
        return torch.cat([gather_rows(boxes.flatten(1, 2), best), scores[..., None], labels[..., None].to(scores)], 2)

    def _shapes_are_static(self, like: Tensor) -> bool:
        return shapes_are_static(self.static_shapes, like)


def unpad_detections(block: Tensor) -> list[dict[str, Tensor]]:
    """Split the result of detect_padded() into a dict of boxes, scores and labels per image, on the host.

    The host waits for a GPU here and nowhere else.
    """
    block = block.cpu()
    counts = (block[..., 4] >= 0).sum(1).tolist()
    rows = (of_image[:count] for of_image, count in zip(block, counts, strict=True))
    return [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].long()} for r in rows]
