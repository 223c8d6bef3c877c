"""Measure a training pass of ViTDet on the CPU: our attention against one with a bias for every pair of patches.

OMP_NUM_THREADS=1 python -m benchmarks.vitdet --imgsz 640

The pass is forward and backward of the backbone, batch 1. Each variant runs in its own process, to measure its peak
memory. Seconds are CPU time, which other load affects less; with several threads it is their sum.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

import torch
from torch import Tensor

from models.backbones.vit import RelativeAttention, relative_positions
from models.backbones.vitdet import vitdet_backbone

ROUNDS = 3
WAYS = ("pairwise bias", "ours", "ours, checkpointed")


def attention_with_bias(self: RelativeAttention, x: Tensor) -> Tensor:
    """Replace Attention.forward by a (heads, H W, H W) bias and softmax, as published."""
    batch, height, width, channels = x.shape
    q, k, v = self.qkv(x).reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    by_position = q.unflatten(2, (height, width))
    of_rows = torch.einsum("bnhwd,hkd->bnhwk", by_position, relative_positions(self.rel_pos_h, height))
    of_columns = torch.einsum("bnhwd,wkd->bnhwk", by_position, relative_positions(self.rel_pos_w, width))
    bias = (of_rows[..., :, None] + of_columns[..., None, :]).flatten(4).flatten(2, 3)
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(-1)
    return self.proj((weights @ v).transpose(1, 2).reshape(batch, height, width, channels))


def measure(way: str, side: int) -> dict[str, float]:
    """Median CPU seconds of a pass after the first, and MiB by which passes raised this process's peak memory."""
    torch.manual_seed(0)
    backbone = vitdet_backbone(channels=768, heads=12).train()
    if way == "pairwise bias":
        RelativeAttention.forward = attention_with_bias
    backbone.set_grad_checkpointing(way == "ours, checkpointed")
    images = torch.randn(1, 3, side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(1 + ROUNDS):
        started = time.process_time()
        sum(level.mean() for level in backbone(images).values()).backward()
        seconds.append(time.process_time() - started)
    return {"s": median(seconds[1:]), "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> None:
    """Measure all variants, one after the other."""
    parser = argparse.ArgumentParser(description="ViTDet's training pass on the CPU.")
    parser.add_argument("--imgsz", type=int, default=640, help="px, a multiple of 32")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.imgsz)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {options.imgsz} x {options.imgsz} px")
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.vitdet", "--imgsz", str(options.imgsz), "--way", way]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{way}: {result['s']:.1f} s of CPU time, {result['mib']:.0f} MiB more than before the first pass")


if __name__ == "__main__":
    main()
