"""The region proposal network: torchvision's, fit for training on any image and for measuring its losses."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from models.rcnn.steady_sampler import steady


class TrainableRPN(RegionProposalNetwork):
    """torchvision's RPN, with a proposal for every training image: the box head's losses are means over proposals."""

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See RegionProposalNetwork; in training, the whole image is the proposal where there would be none."""
        boxes, scores = super().filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
        for i, size in enumerate(image_shapes):
            if self.training and len(boxes[i]) == 0:
                boxes[i], scores[i] = whole_image(size, boxes[i]), scores[i].new_zeros(1)
        return boxes, scores

    def propose_and_measure(
        self, images: ImageList, features: Mapping[str, Tensor], targets: list[Mapping[str, Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals as forward() gives them in eval mode, and the training's losses of each image alone, (B,) float32.

        Anchors are sampled for each image as SteadySampler does.
        """
        maps = list(features.values())
        logits, deltas = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        anchors_per_level = [level[0].numel() for level in logits]
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        decoded = self.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
        proposals, _ = self.filter_proposals(decoded, logits, images.image_sizes, anchors_per_level)
        logits, deltas = logits.chunk(len(anchors)), deltas.chunk(len(anchors))
        rpn, each_image = steady(self), zip(logits, deltas, anchors, targets, strict=True)
        objectness, box_reg = zip(*(rpn._losses_of_image(*image) for image in each_image), strict=True)
        return proposals, {"loss_objectness": torch.stack(objectness), "loss_rpn_box_reg": torch.stack(box_reg)}

    def _losses_of_image(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, target: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        labels, boxes = self.assign_targets_to_anchors([anchors], [target])
        return self.compute_loss(logits, deltas, labels, self.box_coder.encode(boxes, [anchors]))


def whole_image(size: tuple[int, int], like: Tensor) -> Tensor:
    """(1, 4) box of all of an image of height and width `size`, with the format and device of `like`."""
    whole = like.new_zeros(1, 4)
    whole[:, 2], whole[:, 3] = size[1], size[0]  # filled in place: a copy from the host would wait for the GPU
    return whole
