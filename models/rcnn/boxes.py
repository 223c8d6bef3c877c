"""Operations on the boxes of a batch, (B, N, 4) x1 y1 x2 y2 in pixels of the batch.

Results are torchvision's, to the bit. None creates a tensor on the host, which would have to be copied to a GPU.
"""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder


class BatchedBoxCoder(BoxCoder):
    """torchvision's BoxCoder, with a fifth of its operators and without copies from the host."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """(N, 4) regression targets that turn `proposals` (N, 4) into `reference_boxes` (N, 4)."""
        (xy, _, wh, _), (centers, sides) = self._pairs(), _centers_and_sides(proposals)
        to_centers, to_sides = _centers_and_sides(reference_boxes)
        return torch.cat([xy * (to_centers - centers) / sides, wh * torch.log(to_sides / sides)], -1)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Apply the regression `rel_codes` (N, 4 C) to `boxes` (N, 4): (N, 4 C) boxes."""
        (xy, _, wh, _), deltas = self._pairs(), rel_codes.unflatten(1, (-1, 4))
        centers, sides = (part[:, None] for part in _centers_and_sides(boxes.to(rel_codes.dtype)))
        centers = deltas[..., :2] / xy * sides + centers
        half = 0.5 * (torch.exp((deltas[..., 2:] / wh).clamp(max=self.bbox_xform_clip)) * sides)
        return torch.cat([centers - half, centers + half], -1).flatten(1)

    def _pairs(self) -> tuple[float, float, float, float]:
        x, y, w, h = self.weights
        torch._assert(x == y and w == h, "bbox_reg_weights: those of x and y, and of width and height, must be equal")
        return x, y, w, h


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def image_bounds(sizes: Tensor) -> Tensor:
    """Upper bounds of x1 y1 x2 y2, (B, 4) float32, in images of (B, 2) heights and widths."""
    return sizes.flip(1).repeat(1, 2).float()


def clip_boxes(boxes: Tensor, bounds: Tensor) -> Tensor:
    """Clip boxes (B, ..., 4) to their images; `bounds` (B, 4), see image_bounds()."""
    return torch.minimum(boxes.clamp(min=0), bounds.reshape(len(bounds), *[1] * (boxes.ndim - 2), 4))


def has_min_size(boxes: Tensor, least: float) -> Tensor:
    """Whether both sides of (..., 4) boxes are at least `least` px long."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)


def iou(ones: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each of (..., N, 4) with each of (..., M, 4): (..., N, M)."""
    ax1, ay1, ax2, ay2 = ones[..., :, None, :].unbind(-1)
    bx1, by1, bx2, by2 = others[..., None, :, :].unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    common = width.mul_(height)
    return common / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, N, ...) by (B, K) indices: (B, K, ...)."""
    more = values.shape[2:]
    return values.gather(1, index.reshape(*index.shape, *[1] * len(more)).expand(*index.shape, *more))
