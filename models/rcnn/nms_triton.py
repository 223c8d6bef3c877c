"""Non-maximum suppression in one launch, a program for each set of boxes.

Tested in Triton's interpreter on a CPU; it has not run on a GPU yet.
"""

import subprocess

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, TritonError)  # of a first launch, which compiles
MOST_BOXES = 8192  # of a set: all of them lie in the registers of one program


@triton.jit
def _suppress(boxes, there, kept, threshold, count, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * count
    place = tl.arange(0, BLOCK)
    inside = place < count
    own = boxes + (first + place) * 4
    x1 = tl.load(own, mask=inside, other=0.0)
    y1 = tl.load(own + 1, mask=inside, other=0.0)
    x2 = tl.load(own + 2, mask=inside, other=0.0)
    y2 = tl.load(own + 3, mask=inside, other=0.0)
    area = (x2 - x1) * (y2 - y1)
    alive = tl.load(there + first + place, mask=inside, other=0).to(tl.int32)
    stays = tl.zeros([BLOCK], dtype=tl.int32)
    best = tl.min(tl.where(alive != 0, place, BLOCK), axis=0)
    while best < BLOCK:
        box = boxes + (first + best) * 4
        bx1 = tl.load(box)
        by1 = tl.load(box + 1)
        bx2 = tl.load(box + 2)
        by2 = tl.load(box + 3)
        width = tl.maximum(tl.minimum(x2, bx2) - tl.maximum(x1, bx1), 0.0)
        height = tl.maximum(tl.minimum(y2, by2) - tl.maximum(y1, by1), 0.0)
        common = width * height
        overlap = tl.div_rn(common, (bx2 - bx1) * (by2 - by1) + area - common)
        stays = tl.where(place == best, 1, stays)
        alive = tl.where((place <= best) | (overlap > threshold), 0, alive)
        best = tl.min(tl.where(alive != 0, place, BLOCK), axis=0)
    tl.store(kept + first + place, stays.to(tl.int8), mask=inside)


def suppress(boxes: Tensor, there: Tensor, threshold: float) -> Tensor:
    """See nms.suppress; contiguous tensors of one GPU, N at most MOST_BOXES, and a threshold that float32 has."""
    sets, count = there.shape
    kept = torch.zeros(sets, count, dtype=torch.int8, device=boxes.device)
    if kept.numel():
        block = triton.next_power_of_2(count)
        # without fused multiply-add, which would round the union of two boxes in another way than torchvision
        options = {"num_warps": max(1, min(16, block // 256)), "enable_fp_fusion": False}
        with torch.cuda.device_of(boxes):  # Triton launches on the thread's device
            _suppress[(sets,)](boxes, there.to(torch.int8), kept, threshold, count, BLOCK=block, **options)
    return kept.bool()
