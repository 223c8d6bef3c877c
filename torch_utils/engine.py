"""The two loops: an epoch of training, and a pass over a split that measures it."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.coco_eval import CocoMetrics, coco_metrics
from torch_utils.distributed import Processes, from_main, gathered, share_buffers
from torch_utils.optimization import Schedule, set_learning_rate
from torch_utils.precision import Precision
from torch_utils.training_state import LOSS_TERMS
from utils.batch import DAMAGED
from utils.detections import Detections
from utils.errors import UserError
from utils.label_index import LabelIndex
from utils.loader import Loader
from utils.progress import StepMeter

log = logging.getLogger(__name__)


def train_one_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    epoch: int,
    *,
    schedule: Schedule,
    precision: Precision,
    processes: Processes,
    index: LabelIndex,
) -> Tensor:
    """Train on every batch once.

    Args:
        epoch: from 0; with the schedule it gives the learning rate.
        index: names the images if a loss is not finite.

    Returns:
        (steps, 4) float32 on the CPU: LOSS_TERMS of every step, mean of all processes.

    Raises:
        UserError: a loss is NaN or infinite. On a GPU the message may come some steps late, when the meter looks at the
            losses; checkpoints hold whole epochs and stay good.
    """
    model.train()
    device = precision.device
    losses = torch.zeros(len(loader), len(LOSS_TERMS), device=device)
    seen: deque[Tensor] = deque()  # image ids of the steps since the last look
    meter = StepMeter(f"Epoch: [{epoch}]", loader)
    for batch in meter:
        lr = schedule.at(epoch * len(loader) + meter.step)
        set_learning_rate(optimizer, lr)
        with precision.autocast():
            terms: Mapping[str, Tensor] = model(batch.to(device))
            loss = sum(terms.values())
        optimizer.zero_grad(set_to_none=True)
        precision.scaler.scale(loss).backward()
        precision.scaler.step(optimizer)
        precision.scaler.update()

        losses[meter.step] = torch.stack([terms[name].detach() for name in LOSS_TERMS])
        seen.append(batch.image_ids)
        due = meter.due()
        if due or device.type == "cpu":  # reading values from a GPU waits for it
            _check_finite(losses[meter.step + 1 - len(seen) : meter.step + 1].cpu(), seen, epoch, meter.step, index)
            seen.clear()
        if due:
            total = losses[: meter.step + 1].sum(1).cpu()
            memory = {"max mem": f"{torch.cuda.max_memory_allocated() >> 20}"} if device.type == "cuda" else {}
            meter.show({"lr": f"{lr:.6f}", "loss": f"{total[-1]:.4f} ({total.mean():.4f})"}, memory)
    return torch.stack([*gathered(processes, losses.cpu())]).mean(0)


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
    meter = StepMeter("Test:", loader)
    model_time = 0.0
    for batch in meter:
        started = time.perf_counter()
        with precision.autocast():
            outputs = model(batch.to(precision.device))
        for image_id, output in zip(batch.image_ids.tolist(), outputs, strict=True):
            if image_id == DAMAGED:
                continue
            found = Detections.from_output(output)
            own[image_id] = found if new_labels is None else found.relabelled(new_labels)
        model_time += time.perf_counter() - started
        if meter.due():
            meter.show({"model_time": f"{model_time / (meter.step + 1):.4f}"})
    detections = {image: found for part in gathered(processes, own) for image, found in part.items()}
    if not detections:
        raise UserError(f"{index.folder}: none of the {len(index)} images can be decoded")
    started = time.perf_counter()
    metrics = from_main(processes, lambda: coco_metrics(index, detections))
    log.info("Test:  evaluator_time: %.4f", time.perf_counter() - started)
    log.info("IoU metric: bbox\n%s", metrics.table())
    return Evaluation(metrics, detections)


def _check_finite(losses: Tensor, seen: deque[Tensor], epoch: int, step: int, index: LabelIndex) -> None:
    """`losses` (n, 4) and `seen` (n image ids) belong to the n steps up to `step`."""
    bad = (~losses.isfinite()).any(1).nonzero().flatten().tolist()
    if not bad:
        return
    terms = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSS_TERMS, losses[bad[0]].tolist(), strict=True))
    images = ", ".join(str(index.path(i)) for i in seen[bad[0]].tolist())
    raise UserError(
        f"the loss is not finite in epoch {epoch}, step {step + 1 - len(losses) + bad[0]}: {terms}; images: {images}. "
        "The checkpoints of earlier epochs are good: go on from the last with a lower --lr"
    )
