"""The two loops: an epoch of training, and a pass over a split that measures it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.coco_eval import CocoMetrics, coco_metrics
from torch_utils.distributed import Processes, from_main, gathered, share_buffers
from torch_utils.loss_watch import LossWatch, Update
from torch_utils.precision import Precision
from torch_utils.training_state import LOSS_TERMS
from torch_utils.update import Updater
from utils.batch import DAMAGED, Batch
from utils.detections import Detections
from utils.errors import UserError
from utils.label_index import LabelIndex
from utils.loader import Loader
from utils.machine import resident_memory
from utils.memory import memory_watch
from utils.progress import StepMeter

_MORE_DATA = (
    "More than 30 % of an epoch was spent waiting for data: more --workers, up to one a core, or a --cache (ram, disk) "
    "of the resized images, may make it faster"
)
_LESS_MEMORY = (
    "lower --batch (--accumulate makes up for it) or --imgsz, or add --amp, or --activation-checkpointing for "
    "transformers and timm/ models"
)
log = logging.getLogger(__name__)


def train_one_epoch(network: nn.Module, updater: Updater, loader: Loader, epoch: int, *, watch: LossWatch) -> Tensor:
    """Train on every batch once.

    Args:
        network: the updater's model, or its wrapper in a distributed run.
        epoch: from 0; with the schedule it gives the learning rate.
        watch: looks at updates whose loss is not finite, which are left out.

    Returns:
        (steps, 4) float32 on the CPU: LOSS_TERMS of every step that was not left out, mean of all processes.

    Raises:
        UserError: too many updates in a row were left out.
    """
    network.train()
    precision, steps, size = updater.precision, len(loader), updater.accumulate
    device = precision.device
    losses = torch.zeros(steps, len(LOSS_TERMS), device=device)
    is_bad = torch.zeros(steps, dtype=torch.bool, device=device)
    images: list[Tensor] = []
    meter = StepMeter(f"Epoch: [{epoch}]", loader, processes=updater.processes.world_size, advice=_MORE_DATA)
    for batch in meter:
        step = meter.step
        first = step - step % size
        last = min(first + size, steps) - 1
        update = epoch * -(-steps // size) + step // size
        if step == first:
            lr, images = updater.start(update), []
        place = f"epoch {epoch}, step {step}, {_shape(batch)}"
        with memory_watch(place, _LESS_MEMORY), updater.batch_of(network, last=step == last):
            with precision.autocast():
                terms: Mapping[str, Tensor] = network(batch.to(device))
                loss = sum(terms.values())
            precision.scaler.scale(loss).backward()
        losses[step] = torch.stack([terms[name].detach() for name in LOSS_TERMS])
        images.append(batch.image_ids)
        if step == last:
            found = updater.finish(update, losses[first : step + 1])
            is_bad[first : step + 1] = found
            watch.note(Update(epoch, step, losses[first : step + 1], images, found), last=step == steps - 1)
        if meter.due():  # reading values from a GPU waits for it
            total = losses[: step + 1].sum(1).cpu()
            mean = total[~is_bad[: step + 1].cpu()].mean()
            meter.show({"lr": f"{lr:.6f}", "loss": f"{total[-1]:.4f} ({mean:.4f})"}, _memory(device))
    return torch.stack([*gathered(updater.processes, losses.cpu())]).mean(0)[~is_bad.cpu()]


@dataclass(frozen=True)
class Evaluation:
    """What a pass over a split found."""

    metrics: CocoMetrics
    detections: Mapping[int, Detections]  # image number in the index -> detections, in original pixels


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    index: LabelIndex,
    *,
    precision: Precision,
    processes: Processes,
    new_labels: np.ndarray | None = None,
) -> Evaluation:
    """Detect in every image and compare with the index's boxes; train.py and eval.py both measure with this.

    An image that cannot be decoded does not count. Each process of a distributed run sees its own images; all get the
    same result.

    Args:
        new_labels: the model's label -> the index's label, negative for none; without it they are the same.

    Raises:
        UserError: no image can be decoded.
    """
    model.eval()
    share_buffers(processes, model)
    own: dict[int, Detections] = {}
    meter = StepMeter("Test:", loader, processes=processes.world_size)
    model_time = 0.0
    for batch in meter:
        started = time.perf_counter()
        place = f"evaluation, step {meter.step}, {_shape(batch)}"
        with memory_watch(place, "lower --batch or --imgsz"), precision.autocast():
            outputs = model(batch.to(precision.device))
        for image_id, output in zip(batch.image_ids.tolist(), outputs, strict=True):
            if image_id == DAMAGED:
                continue
            found = Detections.from_output(output)
            own[image_id] = found if new_labels is None else found.relabelled(new_labels)
        model_time += time.perf_counter() - started
        if meter.due():
            meter.show({"model_time": f"{model_time / (meter.step + 1):.4f}"}, _memory(precision.device))
    detections = {image: found for part in gathered(processes, own) for image, found in part.items()}
    if not detections:
        raise UserError(f"{index.folder}: none of the {len(index)} images can be decoded")
    started = time.perf_counter()
    metrics = from_main(processes, lambda: coco_metrics(index, detections))
    log.info("Test:  evaluator_time: %.4f", time.perf_counter() - started)
    log.info("IoU metric: bbox\n%s", metrics.table())
    return Evaluation(metrics, detections)


def _memory(device: torch.device) -> dict[str, str]:
    """MiB: the most that tensors had of the GPU so far, or what this process has of the machine."""
    if device.type == "cuda":
        return {"max mem": f"{torch.cuda.max_memory_allocated(device) >> 20}"}
    return {"mem": f"{resident_memory() >> 20}"}


def _shape(batch: Batch) -> str:
    count, height, width, _ = batch.images.shape
    return f"{count} image{'s' if count > 1 else ''} of {width} x {height} px"
