"""Non-maximum suppression in one launch, whatever is kept.

A program for each tile of 64 x 64 pairs of a set writes which boxes would suppress which others, a bit each. The last
program of a set to come to its end then goes through the set, 64 boxes at a time: those that no earlier one suppresses
settle among themselves, and suppress later ones by their bits.

Tested in Triton's interpreter on a CPU; it has not run on a GPU yet.
"""

import subprocess

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, TritonError)  # of a first launch, which compiles
MOST_BOXES = 8192  # of a set; its bits take 1 KiB a box then
_SIDE = 64  # of a tile: as many bits as a word has


@triton.jit
def _either(one, other):
    return one | other


@triton.jit
def _corners(boxes, rows, inside):
    box = boxes + rows * 4
    x1 = tl.load(box, mask=inside, other=0.0)
    y1 = tl.load(box + 1, mask=inside, other=0.0)
    x2 = tl.load(box + 2, mask=inside, other=0.0)
    y2 = tl.load(box + 3, mask=inside, other=0.0)
    return x1, y1, x2, y2


@triton.jit
def _suppressed_by(boxes, rows, columns, threshold, count, SIDE: tl.constexpr):
    """For each row a word: bit k is set where that box, if kept, suppresses the k-th of the columns."""
    x1, y1, x2, y2 = _corners(boxes, rows, rows < count)
    u1, v1, u2, v2 = _corners(boxes, columns, columns < count)
    width = tl.maximum(tl.minimum(x2[:, None], u2[None, :]) - tl.maximum(x1[:, None], u1[None, :]), 0.0)
    height = tl.maximum(tl.minimum(y2[:, None], v2[None, :]) - tl.maximum(y1[:, None], v1[None, :]), 0.0)
    common = width * height
    areas = ((x2 - x1) * (y2 - y1))[:, None] + ((u2 - u1) * (v2 - v1))[None, :]
    suppresses = (tl.div_rn(common, areas - common) > threshold) & (rows[:, None] < columns[None, :])
    return tl.sum(suppresses.to(tl.int64) << (columns % SIDE).to(tl.int64)[None, :], axis=1)


@triton.jit
def _keep(words, valid, kept, count, blocks, BLOCKS: tl.constexpr, SIDE: tl.constexpr):
    """Go through a set, best first, once all its words are written."""
    offset = tl.arange(0, SIDE)
    bit = offset.to(tl.int64)
    every = tl.arange(0, BLOCKS)
    gone = tl.zeros([BLOCKS], dtype=tl.int64)  # by block: what those that are kept suppress
    block = 0
    while block < blocks:
        rows = block * SIDE + offset
        inside = rows < count
        free = tl.sum(tl.load(valid + rows, mask=inside, other=0).to(tl.int64) << bit, axis=0)
        free &= ~tl.reduce(tl.where(every == block, gone, 0), 0, _either)
        diagonal = tl.load(words + rows * blocks + block, mask=inside, other=0, cache_modifier=".cg")
        stays = free
        before = ~free
        while before != stays:  # in round k all is settled whose fate hangs on a chain of at most k boxes
            before = stays
            stays = free & ~tl.reduce(tl.where(((stays >> bit) & 1) != 0, diagonal, 0), 0, _either)
        is_kept = ((stays >> bit) & 1) != 0
        tl.store(kept + rows, is_kept.to(tl.int8), mask=inside)
        later = is_kept[:, None] & (every > block)[None, :] & (every < blocks)[None, :]
        addresses = words + rows[:, None] * blocks + every[None, :]
        gone |= tl.reduce(tl.load(addresses, mask=later, other=0, cache_modifier=".cg"), 0, _either)
        block += 1


@triton.jit
def _suppress(boxes, valid, words, finished, kept, threshold, count, blocks, BLOCKS: tl.constexpr, SIDE: tl.constexpr):
    of_set = tl.program_id(0).to(tl.int64)
    row, column = tl.program_id(1), tl.program_id(2)
    boxes += of_set * count * 4
    valid += of_set * count
    words += of_set * count * blocks
    rows, columns = row * SIDE + tl.arange(0, SIDE), column * SIDE + tl.arange(0, SIDE)
    some_rows = tl.max(tl.load(valid + rows, mask=rows < count, other=0), axis=0)
    some_columns = tl.max(tl.load(valid + columns, mask=columns < count, other=0), axis=0)
    if (row <= column) & (some_rows != 0) & (some_columns != 0):  # nothing asks for the words of any other tile
        suppressed = _suppressed_by(boxes, rows, columns, threshold, count, SIDE)
        tl.store(words + rows * blocks + column, suppressed, mask=rows < count)
    tl.debug_barrier()  # all threads have written before one of them says so
    if tl.atomic_add(finished + of_set, 1, sem="acq_rel") == blocks * blocks - 1:
        tl.debug_barrier()
        _keep(words, valid, kept + of_set * count, count, blocks, BLOCKS, SIDE)


def batched_nms_triton(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """As nms.batched_nms; contiguous tensors of one GPU, N at most MOST_BOXES, and a threshold that float32 has."""
    sets, count = valid.shape
    kept = torch.empty(sets, count, dtype=torch.int8, device=boxes.device)
    if kept.numel():
        blocks = triton.cdiv(count, _SIDE)
        words = torch.empty(sets, count, blocks, dtype=torch.int64, device=boxes.device)
        finished = torch.zeros(sets, dtype=torch.int32, device=boxes.device)
        with torch.cuda.device_of(boxes):  # Triton launches on the thread's device
            _suppress[(sets, blocks, blocks)](
                boxes, valid.to(torch.int8), words, finished, kept, threshold, count, blocks,
                BLOCKS=triton.next_power_of_2(blocks), SIDE=_SIDE, num_warps=4,
                enable_fp_fusion=False,  # which would round the union of two boxes in another way than torchvision
            )  # fmt: skip
    return kept.bool()
