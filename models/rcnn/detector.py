"""Our Faster R-CNN: torchvision's network, state-dict keys and results, fed with uint8 batches."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.rcnn import sampling
from models.rcnn.boxes import image_bounds
from models.rcnn.errors import ModelError
from models.rcnn.losses import ClassifierLoss
from models.rcnn.reference import as_torchvision
from models.rcnn.roi_heads import BatchedRoIHeads
from models.rcnn.rpn import BatchedRPN, RPNOutput
from models.rcnn.structures import GroundTruth, UintBatch, gt_slots

if TYPE_CHECKING:
    from models.building.backbone_spec import BackboneSpec
    from models.building.build_options import BuildOptions


class FasterRCNN(TorchvisionFasterRCNN):
    """Faster R-CNN (Ren et al. 2015, https://arxiv.org/abs/1506.01497) on any backbone.

    Called with a uint8 batch, whose images have their network size already:
        in training: a dict of the four losses, float32 scalars: loss_classifier, loss_box_reg, loss_objectness,
        loss_rpn_box_reg;
        in eval mode: per image a dict of boxes (N, 4) float32 x1 y1 x2 y2 in *original* pixels, labels (N,) int64 and
        scores (N,) float32, best first, on the host: they come from a GPU in one copy.
    Called with a list of float (3, H, W) images in 0..1, and targets in training, it is torchvision's FasterRCNN:
    min_size, max_size and fixed_size of its transform apply.

    Args:
        backbone: normalized images -> one map or a dict of maps.
        transform: of lists of images; its mean and standard deviation are those of batches too.
        spec, build_options: the declaration of the backbone and the user's choices, from which the parts were built.
        stages: names of the backbone's parameters or modules in groups that can be frozen, from the image on.
        frozen_modules: names of the modules that stay in eval mode in training.
        use_torchvision_ops: compute with torchvision's modules around the same layers: the reference, slower.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: BatchedRPN,
        roi_heads: BatchedRoIHeads,
        transform: GeneralizedRCNNTransform,
        *,
        spec: "BackboneSpec",
        build_options: "BuildOptions",
        stages: tuple[tuple[str, ...], ...] = (),
        frozen_modules: tuple[str, ...] = (),
        use_torchvision_ops: bool = False,
    ) -> None:
        # Not TorchvisionFasterRCNN's constructor, which would build its own RPN and RoI heads.
        GeneralizedRCNN.__init__(self, backbone, rpn, roi_heads, transform)
        self.spec, self.build_options = spec, build_options
        self.stages, self.frozen_modules = stages, frozen_modules
        self.use_torchvision_ops = use_torchvision_ops
        mean, std = (torch.tensor(values) for values in (self.transform.image_mean, self.transform.image_std))
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def train(self, mode: bool = True) -> "FasterRCNN":
        """See nn.Module; frozen modules stay in eval mode: their batch norms keep their statistics."""
        super().train(mode)
        for name in self.frozen_modules:
            self.get_submodule(name).eval()
        return self

    def forward(
        self, images: UintBatch | Sequence[Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, detections otherwise; see the class.

        Raises:
            ModelError: batch norms cannot be trained on a batch this small.
        """
        if self.use_torchvision_ops:
            return as_torchvision(self)(images, targets)
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        seen = self._extract_features(images)
        proposals = self.rpn.proposals(seen.candidates, seen.limits)
        if self.training:
            truth = GroundTruth.gathered(images.boxes, images.labels, seen.places)
            losses = self.roi_heads.losses(seen.features, proposals, truth, seen.sizes)
            return losses | self.rpn.losses(seen.candidates, truth, sampling.random_priorities)
        found = self.roi_heads.detections(seen.features, proposals, seen.limits, seen.sizes)
        return rescale_boxes(found, images)

    def detect_padded(self, images: Tensor, sizes: Tensor) -> Tensor:
        """In eval mode with fixed shapes: what is found, without a question to the device.

        Args:
            images: (B, H, W, 3) uint8, as in a batch.
            sizes: (B, 2) int64 on the same device, height and width of each image in the block.

        Returns:
            (B, D, 6) float32 x1 y1 x2 y2 in pixels of the block, score, label; scores below 0 fill up.
        """
        features, limits = self._features(self._normalize(images, sizes)), image_bounds(sizes)
        proposals = self.rpn.proposals(self.rpn.candidates(images.shape[1:3], features), limits)
        logits, deltas = self.roi_heads.predict(features, proposals, [])
        return self.roi_heads.detect_padded(logits, deltas, proposals, limits)

    def detect_and_measure(self, batch: UintBatch) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """In eval mode: detections to the bit as forward() has them, and the four losses of each image, (B,) float32.

        A loss is what training would compute of this image alone, with three differences: batch norms are in eval
        mode, proposals are as many as in use, not as in training, and the sampling of anchors and proposals depends on
        the image alone, not on torch's generators.
        """
        seen = self._extract_features(batch)
        proposals = self.rpn.proposals(seen.candidates, seen.limits)
        truth = GroundTruth.gathered(batch.boxes, batch.labels, seen.places)
        rpn_losses = self.rpn.losses(seen.candidates, truth, sampling.fixed_priorities, per_image=True)
        found, losses = self.roi_heads.detect_and_measure(seen.features, proposals, truth, seen.limits, seen.sizes)
        found = self(batch) if self.use_torchvision_ops else rescale_boxes(found, batch)
        return found, losses | rpn_losses

    def set_classifier_loss(self, loss: ClassifierLoss) -> None:
        """Train the box classifier with this loss; state-dict keys stay the same.

        Raises:
            ModelError: torchvision's modules compute the losses, and have only cross entropy.
        """
        if self.use_torchvision_ops:
            raise ModelError(
                "the detector is torchvision's, which has no class weights and no focal loss: drop one of them"
            )
        self.roi_heads.classifier_loss = loss

    def to_device(self, device: torch.device) -> "FasterRCNN":
        """Move it; on a GPU weights of convolutions take the order of the maps, or each step would turn them around."""
        self.to(device)
        if device.type == "cuda":
            for part in (self.backbone, self.rpn.head):
                part.to(memory_format=torch.channels_last)
        return self

    def use_static_shapes(self, choice: bool | None) -> None:
        """Whether shapes follow from shapes alone, as on a GPU; None: everywhere but on a CPU."""
        self.rpn.static_shapes = self.roi_heads.static_shapes = choice

    def _extract_features(self, batch: UintBatch) -> "_Features":
        """What is known of a batch before there are proposals; sizes and counts go to the device in one copy."""
        places = gt_slots(batch.counts)
        numbers = torch.cat([batch.sizes, places], 1)
        if batch.images.device.type == "cuda":
            numbers = numbers.pin_memory()
        sizes, places = numbers.to(batch.images.device, non_blocking=True).split([2, places.shape[1]], 1)
        features = self._features(self._normalize(batch.images, sizes))
        return _Features(
            features,
            self.rpn.candidates(batch.images.shape[1:3], features),
            places,
            image_bounds(sizes),
            [tuple(size) for size in batch.sizes.tolist()],
        )

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name of (B, 3, H, W); torch's own messages for too few pixels name neither batch nor image size."""
        count, _, height, width = images.shape
        try:
            features = self.backbone(images)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            images_of = "one image" if count == 1 else f"{count} images"
            raise ModelError(
                f"a training batch of {images_of} of {height} x {width} px gives batch norm one value per channel, and "
                "it needs more: use larger images (--imgsz), a batch size that leaves no image alone, or --norm frozen"
            ) from None
        except RuntimeError as error:
            if not re.search("Kernel size can't be greater|Output size is too small", str(error)):
                raise
            raise ModelError(
                f"images of {height} x {width} px are too small for this backbone: use larger ones (--imgsz)"
            ) from None
        return OrderedDict([("0", features)]) if isinstance(features, Tensor) else features

    def _normalize(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels-last memory, mean and std applied, padding zero."""
        pixels = torch.addcmul(self.pixel_shift, images.float(), self.pixel_scale)
        rows = torch.arange(images.shape[1], device=images.device) < sizes[:, :1]
        columns = torch.arange(images.shape[2], device=images.device) < sizes[:, 1:]
        outside = ~(rows[:, :, None] & columns[:, None, :])
        return pixels.masked_fill_(outside[..., None], 0).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Features:
    """A batch after the backbone and the RPN's head."""

    features: Mapping[str, Tensor]
    candidates: RPNOutput
    places: Tensor  # (B, G), as gt_slots() gives them
    limits: Tensor  # (B, 4), as image_bounds() gives them
    sizes: list[tuple[int, int]]


def rescale_boxes(detections: list[dict[str, Tensor]], batch: UintBatch) -> list[dict[str, Tensor]]:
    """Detections whose boxes are in pixels of the block, moved to those of the images as they were."""
    ratios = batch.original_sizes.float() / batch.sizes.float()
    for detected, ratio in zip(detections, ratios.flip(1).repeat(1, 2), strict=True):
        detected["boxes"] = detected["boxes"] * ratio
    return detections
