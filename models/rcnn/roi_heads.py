"""The box head for a whole batch: torchvision's parameters, keys and results."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from models.rcnn import sampling
from models.rcnn.boxes import BatchedBoxCoder, clipped, image_bounds, large, rows_of
from models.rcnn.losses import ClassifierLoss
from models.rcnn.matching import matched
from models.rcnn.nms import batched_nms
from models.rcnn.rpn import is_fixed
from models.rcnn.structures import GroundTruth, PaddedBoxes

SMALLEST = 1e-2  # px, sides of a detection, as torchvision's postprocess_detections has it
Sizes = list[tuple[int, int]]


@dataclass(frozen=True)
class SampledProposals:
    """Proposals that a loss is taken over, with what the box predictor should say of them."""

    regions: PaddedBoxes
    labels: Tensor  # (B, S) int64, 0 where there is none
    targets: Tensor  # (B, S, 4) encoded boxes, 0 for the background and where there is none
    sample: sampling.Sample  # their places among the candidates


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
        limits = image_bounds(torch.tensor(image_shapes, device=regions.boxes.device))
        found = self.detections(features, regions, limits, image_shapes)
        return [{key: value.to(limits.device) for key, value in each.items()} for each in found], {}

    def losses(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, truth: GroundTruth, sizes: Sizes
    ) -> dict[str, Tensor]:
        """Classifier and box regression in training; the objects themselves are proposals too."""
        sample_proposals = self.sample_proposals(proposals, truth, truth, sampling.random_priorities)
        logits, deltas = self.predict(features, sample_proposals.regions, sizes)
        valid = sample_proposals.regions.valid.flatten()
        rows = slice(None) if self._is_fixed(valid) else valid
        labels, targets = sample_proposals.labels.flatten()[rows], sample_proposals.targets.flatten(0, 1)[rows]
        classifier, regression = self.losses_of_each(logits, deltas, labels, targets)
        count = valid.sum()
        return {
            "loss_classifier": (classifier * valid[rows]).sum() / count,
            "loss_box_reg": regression.sum() / count,
        }

    def losses_of_each(self, logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Classifier and box regression of each of N proposals, (N,).

        Args:
            logits, deltas: (N, classes) and (N, 4 classes), what the box predictor says.
            labels, targets: (N,) int64 and (N, 4) encoded boxes, what it should say.
        """
        own = deltas.unflatten(1, (-1, 4)).gather(1, labels[:, None, None].expand(-1, 1, 4)).squeeze(1)
        regression = F.smooth_l1_loss(own, targets, beta=1 / 9, reduction="none").sum(1)
        return self.classifier_losses(logits, labels), regression * (labels > 0)

    def classifier_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Classifier loss of each of N proposals, (N,); logits (N, classes), labels (N,) int64."""
        if self.classifier_loss is not None:
            return self.classifier_loss.per_proposal(logits, labels)
        return F.cross_entropy(logits, labels, reduction="none")

    @torch.no_grad()
    def sample_proposals(
        self, proposals: PaddedBoxes, added: PaddedBoxes, truth: GroundTruth, keys: sampling.Priorities
    ) -> SampledProposals:
        """Sample proposals and what was added to them, positives and negatives, and match them with objects."""
        candidates = proposals.joined(added)
        match = matched(candidates.boxes, truth, self.proposal_matcher)
        places = match.clamp(min=0)
        labels = truth.labels.gather(1, places).masked_fill_(match == self.proposal_matcher.BELOW_LOW_THRESHOLD, 0)
        between = match == self.proposal_matcher.BETWEEN_THRESHOLDS
        labels.masked_fill_(between | ~candidates.valid, -1)
        sample = sampling.sampled(
            labels, self.fg_bg_sampler, keys(labels, [proposals.valid.shape[1], added.valid.shape[1]])
        )
        boxes, objects = rows_of(candidates.boxes, sample.index), rows_of(truth.boxes, places.gather(1, sample.index))
        targets = self.box_coder.encode_single(objects.flatten(0, 1), boxes.flatten(0, 1)).view_as(boxes)
        return SampledProposals(
            PaddedBoxes(boxes, sample.taken),
            torch.where(sample.taken, labels.gather(1, sample.index), 0),
            torch.where(sample.positive[..., None], targets, 0),
            sample,
        )

    def predict(self, features: Mapping[str, Tensor], regions: PaddedBoxes, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Logits (R, classes) and deltas (R, 4 classes) of the regions of all images.

        R is B P where shapes are fixed, otherwise the number of regions that are there.
        """
        boxes = regions if self._is_fixed(regions.boxes) else regions.lists()
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))

    def detections(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, limits: Tensor, sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        """Per image a dict of boxes, labels and scores on the host, best first; a GPU's come in one copy."""
        return self._found(*self.predict(features, proposals, sizes), proposals, limits, sizes)

    def detect_and_measure(
        self, features: Mapping[str, Tensor], proposals: PaddedBoxes, truth: GroundTruth, limits: Tensor, sizes: Sizes
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections as detections() has them, and the training's losses of each image alone, (B,) float32.

        As in training the objects are proposals too, for the losses; what is sampled depends on the image alone.
        """
        predicted = self.predict(features, proposals, sizes)
        added = self._not_nothing(proposals, truth, limits)
        more = self.predict(features, added, sizes)
        logits, deltas = (
            torch.cat([self._in_block(one, proposals), self._in_block(other, added)], 1)
            for one, other in zip(predicted, more, strict=True)
        )
        sample_proposals = self.sample_proposals(proposals, added, truth, sampling.fixed_priorities)
        chosen = (rows_of(block, sample_proposals.sample.index).flatten(0, 1) for block in (logits, deltas))
        terms = self.losses_of_each(*chosen, sample_proposals.labels.flatten(), sample_proposals.targets.flatten(0, 1))
        taken = sample_proposals.sample.taken
        means = ((each.view_as(taken) * taken).sum(1) / taken.sum(1) for each in terms)
        losses = dict(zip(("loss_classifier", "loss_box_reg"), means, strict=True))
        return self._found(*predicted, proposals, limits, sizes), losses  # last: the host waits for what is found

    def _not_nothing(self, proposals: PaddedBoxes, truth: GroundTruth, limits: Tensor) -> PaddedBoxes:
        """The objects; where an image has neither those nor proposals, all of it."""
        both = PaddedBoxes(truth.boxes, truth.valid | proposals.valid.any(1, keepdim=True))
        filled = both.or_whole_images(limits)
        return PaddedBoxes(filled.boxes, truth.valid | (filled.valid & ~both.valid))

    def _in_block(self, values: Tensor, regions: PaddedBoxes) -> Tensor:
        """(B, P, ...) of what was predicted for regions; 0 for those that are not there."""
        if self._is_fixed(values):
            return values.unflatten(0, regions.valid.shape)
        block = values.new_zeros(*regions.valid.shape, *values.shape[1:])
        block[regions.valid] = values
        return block

    def _found(
        self, logits: Tensor, deltas: Tensor, proposals: PaddedBoxes, limits: Tensor, sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        if not self._is_fixed(logits):
            results = self.postprocess_detections(logits, deltas, proposals.lists(), sizes)
            return [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*results, strict=True)]
        return detections_of(self.detect_padded(logits, deltas, proposals, limits))

    def detect_padded(self, logits: Tensor, deltas: Tensor, proposals: PaddedBoxes, limits: Tensor) -> Tensor:
        """(B, D, 6) float32 x1 y1 x2 y2 score label of what is found, best first; scores below 0 fill up.

        logits, deltas: (B P, classes) and (B P, 4 classes).
        """
        valid = proposals.valid
        boxes = self.box_coder.decode_single(deltas, proposals.boxes.flatten(0, 1)).unflatten(1, (-1, 4))
        boxes = clipped(boxes.unflatten(0, valid.shape), limits)[:, :, 1:].transpose(1, 2)  # (B, classes - 1, P, 4)
        scores = logits.softmax(-1).unflatten(0, valid.shape)[..., 1:].transpose(1, 2)
        good = large(boxes, SMALLEST) & (scores > self.score_thresh) & valid[:, None]
        scores, order = torch.where(good, scores, -1).sort(dim=-1, descending=True, stable=True)
        boxes = boxes.gather(2, order[..., None].expand(-1, -1, -1, 4))
        kept = batched_nms(boxes.flatten(0, 1), (scores >= 0).flatten(0, 1), self.nms_thresh).view_as(scores)
        scores = torch.where(kept, scores, -1).flatten(1)
        scores, best = scores.topk(min(self.detections_per_img, scores.shape[1]))
        labels = best.div(valid.shape[1], rounding_mode="floor") + 1
        return torch.cat([rows_of(boxes.flatten(1, 2), best), scores[..., None], labels[..., None].to(scores)], 2)

    def _is_fixed(self, like: Tensor) -> bool:
        return is_fixed(self.static_shapes, like)


def detections_of(block: Tensor) -> list[dict[str, Tensor]]:
    """Per image a dict of boxes, scores and labels on the host, of a block as detect_padded() makes it.

    The one place where the host waits for a GPU.
    """
    block = block.cpu()
    counts = (block[..., 4] >= 0).sum(1).tolist()
    rows = (of_image[:count] for of_image, count in zip(block, counts, strict=True))
    return [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].long()} for r in rows]
