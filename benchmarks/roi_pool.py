"""Compare our RoIAlign for CPU training with torchvision's, alone and in a whole training step.

python -m benchmarks.roi_pool
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from statistics import median

import torch
import torchvision
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from models.create_fasterrcnn_model import create_model
from models.rcnn.roi_pool import SAMPLES, SIDE, RoIPool
from utils.loading.batch import Batch

ROUNDS = 7
MAPS = (((4, 128, 10, 10), 32, 512), ((4, 256, 30, 40), 8, 64))  # feature map, stride, RoIs an image
STEPS = (("fasterrcnn_mini_darknet_nano_head", 320), ("fasterrcnn_nano", 240))  # model, image side in px


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def random_boxes(count: int, side: int) -> Tensor:
    """(count, 4) random boxes in an image of `side` px."""
    corners = torch.rand(count, 2, 2) * side
    return torch.cat([corners.amin(1), corners.amax(1) + 1], 1).clamp(max=side)


def compare_pooling(shape: tuple[int, int, int, int], stride: int, rois: int) -> None:
    """Print milliseconds of forward and backward of both, and their ratio."""
    sizes = [(shape[2] * stride, shape[3] * stride)] * shape[0]
    boxes = [random_boxes(rois, min(sizes[0])) for _ in sizes]
    features = torch.rand(shape).to(memory_format=torch.channels_last).requires_grad_()
    pools = {"torchvision": MultiScaleRoIAlign(["0"], SIDE, SAMPLES), "ours": RoIPool({"0": stride})}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pools}
    for _ in range(ROUNDS):
        for name, pool in pools.items():
            started = time.perf_counter()
            out = pool.train()(OrderedDict([("0", features)]), boxes, sizes)
            forward = time.perf_counter() - started
            times[name].append((forward, seconds(out.sum().backward)))
    forward, backward = ({name: median(t[i] for t in times[name]) * 1e3 for name in pools} for i in (0, 1))
    ratio = (forward["torchvision"] + backward["torchvision"]) / (forward["ours"] + backward["ours"])
    text = ", ".join(f"{name} {forward[name]:.1f} / {backward[name]:.1f} ms" for name in pools)
    print(f"{shape}, {rois} RoIs an image: {text}; {ratio:.1f} times as fast")


def compare_step(model_name: str, side: int) -> None:
    """Print milliseconds of a training step with each, and their ratio."""
    model = create_model[model_name](5, pretrained=False).train()
    heads = model.roi_heads
    ours, theirs = heads.box_roi_pool, MultiScaleRoIAlign(heads.box_roi_pool.featmap_names, SIDE, SAMPLES)
    size = torch.full((4, 2), side)
    block = -(-side // 32) * 32
    batch = Batch(
        images=torch.randint(0, 256, (4, block, block, 3), dtype=torch.uint8), sizes=size, original_sizes=size,
        image_ids=torch.arange(4), boxes=random_boxes(24, side), labels=torch.randint(1, 5, (24,)),
        counts=torch.full((4,), 6),
    )  # fmt: skip
    times: dict[str, list[float]] = {"torchvision": [], "ours": []}
    for _ in range(ROUNDS):
        for name, pool in (("torchvision", theirs), ("ours", ours)):
            heads.box_roi_pool = pool
            times[name].append(seconds(lambda: sum(model(batch).values()).backward()))
    old, new = (median(times[name]) * 1e3 for name in ("torchvision", "ours"))
    print(f"step of {model_name}, batch 4, {side} px: torchvision {old:.0f}, ours {new:.0f} ms; {old / new:.2f} times")


def main() -> None:
    """Run all comparisons."""
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} thread(s)")
    for shape, stride, rois in MAPS:
        compare_pooling(shape, stride, rois)
    for model_name, side in STEPS:
        compare_step(model_name, side)


if __name__ == "__main__":
    main()
