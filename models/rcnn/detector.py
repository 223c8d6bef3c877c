"""Our Faster R-CNN: torchvision's network, state-dict keys and results, fed with uint8 batches."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import resize_boxes

from models.errors import ModelError
from models.rcnn.roi_heads import MeasurableRoIHeads
from models.rcnn.rpn import TrainableRPN


class UintBatch(Protocol):
    """What the detector reads of a batch; docs/architecture.md describes the form."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, H and W multiples of 32, each image at the top left
    sizes: Tensor  # (B, 2) int64 on the host, height and width of each image in the block
    original_sizes: Tensor  # (B, 2) int64 on the host, before the resize
    boxes: Tensor  # (sum of counts, 4) float32 x1 y1 x2 y2 in pixels of the block
    labels: Tensor  # (sum of counts,) int64
    counts: Tensor  # (B,) int64 on the host


class Float32Anchors(AnchorGenerator):
    """Anchors in fp32 whatever the features are: corners of large images in bfloat16 are up to 7 px off."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """See AnchorGenerator; `dtype` is that of the features."""
        del dtype
        super().set_cell_anchors(torch.float32, device)


class Float32RPNHead(RPNHead):
    """The RPN's head with results in fp32 inside autocast: boxes decoded from half precision are pixels off."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See RPNHead."""
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class Float32Predictor(FastRCNNPredictor):
    """The box predictor in fp32 inside autocast: rounded logits would give scores that rank detections wrongly."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See FastRCNNPredictor."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class ClassAgnosticPredictor(Float32Predictor):
    """A box predictor with one box regression that holds for all classes (R-FCN, https://arxiv.org/abs/1605.06409)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, num_classes), and the same regression for each class, (N, 4 num_classes)."""
        scores, deltas = super().forward(x)
        return scores, deltas.repeat(1, scores.shape[1])


class FasterRCNN(TorchvisionFasterRCNN):
    """Faster R-CNN (Ren et al. 2015, https://arxiv.org/abs/1506.01497) on any backbone.

    Called with a uint8 batch, whose images have their network size already:
        in training: a dict of the four losses, float32 scalars: loss_classifier, loss_box_reg, loss_objectness,
        loss_rpn_box_reg;
        in eval mode: per image a dict of boxes (N, 4) float32 x1 y1 x2 y2 in *original* pixels, labels (N,) int64 and
        scores (N,) float32, best first.
    Called with a list of float (3, H, W) images in 0..1, and targets in training, it is torchvision's FasterRCNN:
    min_size, max_size and fixed_size of its transform apply.

    stages: names of the backbone's parameters or modules in groups, from the image on.
    kept_in_eval: names of modules that training leaves in eval mode, because they are frozen.
    """

    stages: tuple[tuple[str, ...], ...] = ()
    kept_in_eval: tuple[str, ...] = ()

    def __init__(self, backbone: nn.Module, **torchvision_options: object) -> None:
        super().__init__(backbone, **torchvision_options)
        self.rpn.__class__ = TrainableRPN  # torchvision's constructor builds its own
        self.roi_heads.__class__ = MeasurableRoIHeads
        mean, std = (torch.tensor(values) for values in (self.transform.image_mean, self.transform.image_std))
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def train(self, mode: bool = True) -> "FasterRCNN":
        """See nn.Module; frozen modules stay in eval mode: their batch norms keep their statistics."""
        super().train(mode)
        for name in self.kept_in_eval:
            self.get_submodule(name).eval()
        return self

    def forward(
        self, images: UintBatch | Sequence[Tensor], targets: list[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, detections otherwise; see the class.

        Raises:
            ModelError: batch norms cannot be trained on a batch this small.
        """
        if isinstance(images, (list, tuple)):
            return super().forward(images, targets)
        batch: UintBatch = images
        sizes, image_list, features = self._seen(batch)
        truth = _targets(batch) if self.training else None
        proposals, rpn_losses = self.rpn(image_list, features, truth)
        detections, roi_losses = self.roi_heads(features, proposals, sizes, truth)
        return {**roi_losses, **rpn_losses} if self.training else _in_original_pixels(detections, batch)

    def detect_and_measure(self, batch: UintBatch) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """In eval mode: detections to the bit as forward() has them, and the four losses of each image, (B,) float32.

        A loss is what training would compute of this image alone, with three differences: batch norms are in eval
        mode, proposals are as many as in use, not as in training, and the sampling of anchors and proposals depends on
        the image alone, not on torch's generators.
        """
        sizes, image_list, features = self._seen(batch)
        truth = _targets(batch)
        proposals, rpn_losses = self.rpn.propose_and_measure(image_list, features, truth)
        detections, roi_losses = self.roi_heads.detect_and_measure(features, proposals, sizes, truth)
        return _in_original_pixels(detections, batch), {**roi_losses, **rpn_losses}

    def _seen(self, batch: UintBatch) -> tuple[list[tuple[int, int]], ImageList, dict[str, Tensor]]:
        """Sizes of the images, the images normalised, and the backbone's maps of them."""
        sizes = [tuple(size) for size in batch.sizes.tolist()]
        image_list = ImageList(self._normalise(batch.images, sizes), sizes)
        return sizes, image_list, self._features(image_list)

    def _features(self, images: ImageList) -> dict[str, Tensor]:
        """Maps by name; torch's own messages for too few pixels name neither batch nor image size."""
        count, _, height, width = images.tensors.shape
        try:
            features = self.backbone(images.tensors)
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

    def _normalise(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels-last memory, mean and std applied, padding zero."""
        pixels = torch.addcmul(self.pixel_shift, images.float(), self.pixel_scale)
        for image, (height, width) in zip(pixels, sizes, strict=True):
            image[height:] = 0
            image[:, width:] = 0
        return pixels.permute(0, 3, 1, 2)


def _targets(batch: UintBatch) -> list[dict[str, Tensor]]:
    counts = batch.counts.tolist()
    pairs = zip(batch.boxes.split(counts), batch.labels.split(counts), strict=True)
    return [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]


def _in_original_pixels(detections: list[dict[str, Tensor]], batch: UintBatch) -> list[dict[str, Tensor]]:
    sizes = zip(batch.sizes.tolist(), batch.original_sizes.tolist(), strict=True)
    for detected, (size, original_size) in zip(detections, sizes, strict=True):
        detected["boxes"] = resize_boxes(detected["boxes"], size, original_size)
    return detections
