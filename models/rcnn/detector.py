"""Faster R-CNN with torchvision's network, state-dict keys and results, for uint8 batches."""

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
        """Losses in training, detections in eval mode; see the class.

        Raises:
            ModelError: batch norms cannot be trained on a batch this small.
        """
        if self.use_torchvision_ops:
            return as_torchvision(self)(images, targets)
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        features = self._extract_features(images)
        proposals = self.rpn.proposals(features.rpn_output, features.bounds)
        if self.training:
            truth = GroundTruth.pad(images.boxes, images.labels, features.slots)
            losses = self.roi_heads.losses(features.maps, proposals, truth, features.sizes)
            return losses | self.rpn.losses(features.rpn_output, truth, sampling.random_priorities)
        detections = self.roi_heads.detect(features.maps, proposals, features.bounds, features.sizes)
        return rescale_boxes(detections, images)

    def detect_padded(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Detect in eval mode with static shapes, without waiting for the device.

        Args:
            images: (B, H, W, 3) uint8, as in a batch.
            sizes: (B, 2) int64 on the same device, height and width of each image in the batch.

        Returns:
            (B, D, 6) float32 x1 y1 x2 y2 in pixels of the batch, score, label; rows with scores below 0 are padding.
        """
        features, bounds = self._run_backbone(self._normalize(images, sizes)), image_bounds(sizes)
        proposals = self.rpn.proposals(self.rpn.predict(images.shape[1:3], features), bounds)
        logits, deltas = self.roi_heads.predict(features, proposals, [])
        return self.roi_heads.detect_padded(logits, deltas, proposals, bounds)

    def detect_and_measure(self, batch: UintBatch) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of forward() in eval mode, to the bit, and the four losses of each image, (B,) float32.

        A loss is that of training on this image alone, with three differences: batch norms are in eval mode, the number
        of proposals is that of inference, and the sampling of anchors and proposals depends on the image alone, not on
        torch's generators.
        """
        features = self._extract_features(batch)
        proposals = self.rpn.proposals(features.rpn_output, features.bounds)
        truth = GroundTruth.pad(batch.boxes, batch.labels, features.slots)
        rpn_losses = self.rpn.losses(features.rpn_output, truth, sampling.fixed_priorities, per_image=True)
        detections, losses = self.roi_heads.detect_and_measure(
            features.maps, proposals, truth, features.bounds, features.sizes
        )
        detections = self(batch) if self.use_torchvision_ops else rescale_boxes(detections, batch)
        return detections, losses | rpn_losses

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
        """Move the detector; on a GPU convolutions get channels-last weights, or each step would convert them."""
        self.to(device)
        if device.type == "cuda":
            for part in (self.backbone, self.rpn.head):
                part.to(memory_format=torch.channels_last)
        return self

    def use_static_shapes(self, choice: bool | None) -> None:
        """Set whether shapes depend on shapes alone, as on a GPU; None: everywhere but on a CPU."""
        self.rpn.static_shapes = self.roi_heads.static_shapes = choice

    def _extract_features(self, batch: UintBatch) -> "_Features":
        """Run the backbone and the RPN's head; sizes and counts go to the device in one copy."""
        slots = gt_slots(batch.counts)
        numbers = torch.cat([batch.sizes, slots], 1)
        if batch.images.device.type == "cuda":
            numbers = numbers.pin_memory()
        sizes, slots = numbers.to(batch.images.device, non_blocking=True).split([2, slots.shape[1]], 1)
        maps = self._run_backbone(self._normalize(batch.images, sizes))
        return _Features(
            maps,
            self.rpn.predict(batch.images.shape[1:3], maps),
            slots,
            image_bounds(sizes),
            [tuple(size) for size in batch.sizes.tolist()],
        )

    def _run_backbone(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name of (B, 3, H, W); errors about too few pixels name batch and image size, unlike torch's."""
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

    maps: Mapping[str, Tensor]
    rpn_output: RPNOutput
    slots: Tensor  # (B, G), see gt_slots()
    bounds: Tensor  # (B, 4), see image_bounds()
    sizes: list[tuple[int, int]]


def rescale_boxes(detections: list[dict[str, Tensor]], batch: UintBatch) -> list[dict[str, Tensor]]:
    """Convert boxes from pixels of the batch to pixels of the original images, in place."""
    ratios = batch.original_sizes.float() / batch.sizes.float()
    for detected, ratio in zip(detections, ratios.flip(1).repeat(1, 2), strict=True):
        detected["boxes"] = detected["boxes"] * ratio
    return detections
