"""Non-maximum suppression of many sets of boxes at once, without waiting for the device.

On a CPU it is torchvision's operator. On a GPU with Triton it is one launch (nms_triton.py). Elsewhere it is a fixed
point iteration of whole-tensor operations, also exact, whose end the host checks every few rounds.
"""

import functools
import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.rcnn.boxes import iou

_MOST_PAIRS = 2**25  # of boxes at once: a few tensors of up to 128 MiB
_ROUNDS = 8  # between two questions whether anything still changes
log = logging.getLogger(__name__)


@torch.library.custom_op("fasterrcnn::suppress", mutates_args=())
def batched_nms(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression in each of M sets.

    Args:
        boxes: (M, N, 4) float32, best first.
        valid: (M, N) bool; other boxes are neither kept nor suppress any.
        threshold: IoU with a better, kept box above which a box is suppressed.

    Returns:
        (M, N) bool: the boxes that are kept.
    """
    if boxes.device.type == "cpu":
        return nms_cpu(boxes, valid, threshold)
    if boxes.device.type == "cuda" and (kernel := _triton(boxes.shape[1], boxes.device)) is not None:
        return kernel(boxes.contiguous(), valid.contiguous(), rounded_down(threshold))
    return nms_fixed_point(boxes, valid, threshold)


@batched_nms.register_fake
def _batched_nms_fake(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    del boxes, threshold
    return torch.empty_like(valid)


def nms_cpu(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """As batched_nms: torchvision's operator, set by set."""
    kept = torch.zeros_like(valid)
    descending = torch.arange(boxes.shape[1], 0, -1, dtype=torch.float32)
    for of_set, keep, mask in zip(boxes, kept, valid, strict=True):
        rows = mask.nonzero().squeeze(1)
        keep[rows[torch.ops.torchvision.nms(of_set[rows], descending[rows], threshold)]] = True
    return kept


def nms_fixed_point(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """As batched_nms: round k settles all boxes that depend on a chain of at most k others.

    Raises:
        RuntimeError: a CUDA graph is being recorded, which cannot wait for the device.
    """
    if boxes.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("non-maximum suppression without Triton asks the host")
    count, limit = boxes.shape[1], rounded_down(threshold)
    some = max(1, _MOST_PAIRS // max(1, count * count))
    parts = zip(boxes.split(some), valid.split(some), strict=True)
    return torch.cat([_settled((iou(part, part) > limit).triu_(1), mask) for part, mask in parts])


def _settled(suppresses: Tensor, valid: Tensor) -> Tensor:
    """The fixed point of (M, N, N) "the first would suppress the second"."""
    kept = valid
    while True:
        for _ in range(_ROUNDS):
            before, kept = kept, valid & ~(suppresses & kept[..., None]).any(1)
        if torch.equal(before, kept):
            return kept


def rounded_down(threshold: float) -> float:
    """The largest float32 that is not above: a float32 IoU is above both or none, as in torchvision's CPU operator."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-1)))


def _triton(count: int, device: torch.device) -> Callable[[Tensor, Tensor, float], Tensor] | None:
    """The kernel, where Triton works and it takes sets of so many boxes."""
    try:
        from models.rcnn import nms_triton
    except ImportError:
        return None
    return nms_triton.batched_nms_triton if count <= nms_triton.MOST_BOXES and _works(device) else None


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether Triton compiles there: it needs a C compiler, Python's headers, a folder to write to, a GPU it knows."""
    from models.rcnn import nms_triton

    try:
        nms_triton.batched_nms_triton(torch.zeros(1, 2, 4, device=device), torch.ones(1, 2, device=device).bool(), 0.5)
    except nms_triton.FAILURES as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("non-maximum suppression without Triton, which is slower: %s", reason)
        return False
    return True
