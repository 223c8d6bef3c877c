"""The box head on proposals: torchvision's, fit for measuring its losses beside its detections."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from models.rcnn.rpn import whole_image
from models.rcnn.steady_sampler import steady


class MeasurableRoIHeads(RoIHeads):
    """torchvision's RoI heads; in eval mode they can tell the training's losses too."""

    def losses(
        self, logits: Tensor, deltas: Tensor, labels: list[Tensor], box_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Classifier and box regression, means over the N proposals of all images.

        Args:
            logits, deltas: (N, classes) and (N, 4 classes), what the box predictor says.
            labels, box_targets: per image, (n,) int64 and (n, 4) encoded boxes, what it should say.
        """
        return fastrcnn_loss(logits, deltas, labels, box_targets)

    def detect_and_measure(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Mapping[str, Tensor]],
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections as forward() gives them in eval mode, and the training's losses of each image alone, (B,) float32.

        As in training the boxes of the targets are proposals too, for the losses; these are taken over proposals that
        are sampled for each image as SteadySampler does.
        """
        predicted = self._predict(features, proposals, image_shapes)
        found = self.postprocess_detections(*predicted, proposals, image_shapes)
        detections = [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*found, strict=True)]

        added = [
            target["boxes"] if len(target["boxes"]) or len(own) else whole_image(size, own)
            for target, own, size in zip(targets, proposals, image_shapes, strict=True)
        ]
        more = self._predict(features, added, image_shapes)
        logits, deltas = (_by_image(*pair, proposals, added) for pair in zip(predicted, more, strict=True))
        candidates = map(torch.cat, zip(proposals, added, strict=True))
        heads, each_image = steady(self), zip(logits, deltas, candidates, targets, strict=True)
        classifier, box_reg = zip(*(heads._losses_of_image(*image) for image in each_image), strict=True)
        return detections, {"loss_classifier": torch.stack(classifier), "loss_box_reg": torch.stack(box_reg)}

    def _predict(
        self, features: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits and deltas of the boxes of all images."""
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))

    def _losses_of_image(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, target: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        boxes = target["boxes"]
        (matched,), (labels,) = self.assign_targets_to_proposals([proposals], [boxes], [target["labels"]])
        (chosen,) = self.subsample([labels])
        truth = boxes if len(boxes) else boxes.new_zeros(1, 4)
        box_targets = self.box_coder.encode([truth[matched[chosen]]], [proposals[chosen]])
        return self.losses(logits[chosen], deltas[chosen], [labels[chosen]], box_targets)


def _by_image(values: Tensor, more: Tensor, boxes: list[Tensor], more_boxes: list[Tensor]) -> list[Tensor]:
    """What was predicted for the boxes of an image, and then for more boxes of it, image by image."""
    parts = (each.split([len(b) for b in of]) for each, of in ((values, boxes), (more, more_boxes)))
    return [torch.cat(pair) for pair in zip(*parts, strict=True)]
