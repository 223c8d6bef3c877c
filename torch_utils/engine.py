"""The two loops: train one epoch, and evaluate a split."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from torch_utils.distributed import Processes, all_gather, broadcast_from_main, share_buffers
from torch_utils.evaluation.result import Evaluation, check_any_decoded, timed_metrics
from torch_utils.training.epoch_record import EpochRecord
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS, EpochProgress
from torch_utils.training.update import Updater
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex
from utils.loading.batch import Batch
from utils.loading.loader import Loader
from utils.loading.sample import DAMAGED
from utils.machine import explain_out_of_memory, resident_memory
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


def train_one_epoch(
    network: nn.Module,
    updater: Updater,
    loader: Loader,
    epoch: int,
    *,
    guard: NonFiniteGuard,
    progress: EpochProgress | None = None,
    start: int = 0,
    on_update: Callable[[Callable[[], EpochProgress]], None] | None = None,
) -> EpochProgress:
    """Train on every batch once.

    Args:
        network: the updater's model, or its DistributedDataParallel wrapper.
        epoch: from 0; with the step it gives the learning rate.
        guard: counts updates that are skipped since their loss is not finite.
        progress: of an interrupted epoch: its losses and images so far.
        start: the step that the loader begins with, the first of an update.
        on_update: called after every update with a function that returns the progress; it may end the run.

    Returns:
        Losses and number of images of the whole epoch.

    Raises:
        UserError: too many updates in a row were skipped.
    """
    network.train()
    device, accumulate, steps = updater.precision.device, updater.accumulate, len(loader)
    updates_per_epoch = -(-steps // accumulate)
    record = EpochRecord(steps, start, progress or EpochProgress(), updater.processes, device)
    world_size = updater.processes.world_size
    meter = StepMeter(f"Epoch: [{epoch}]", loader, start=start, processes=world_size, advice=_MORE_DATA)
    for batch in meter:
        step = meter.step
        update = epoch * updates_per_epoch + step // accumulate
        is_last_of_update = (step + 1) % accumulate == 0 or step == steps - 1
        if step % accumulate == 0:
            lr = updater.start(update)  # sets the learning rate, zeroes the gradients
            record.start_update()
        location = f"epoch {epoch}, step {step}, {_shape(batch)}"
        with (
            explain_out_of_memory(location, _LESS_MEMORY),
            updater.batch_of(network, last=is_last_of_update),
        ):  # no_sync
            with updater.precision.autocast():
                losses = network(batch.to(device))  # LOSS_TERMS -> float32 scalar
                loss = sum(losses.values())
            updater.precision.scaler.scale(loss).backward()
        record.add(losses, batch.image_ids)
        if is_last_of_update:
            with explain_out_of_memory(location, _LESS_MEMORY):  # the first update allocates the optimizer's state
                skipped = updater.finish(update, record.update_losses)  # clips, steps the optimizer and the EMA
            guard.note(record.finish_update(epoch, skipped), last=step == steps - 1)  # may raise UserError
            if on_update is not None:
                on_update(record.progress)
        if meter.due():  # reading losses from a GPU waits for it
            meter.show({"lr": f"{lr:.6f}", "loss": record.loss_text()}, _memory(device))
    return record.progress()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    index: LabelIndex,
    *,
    precision: Precision,
    processes: Processes,
    new_labels: np.ndarray | None = None,
    losses: bool = False,
    sample: bool = False,
    on_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """Detect in every image and compute COCO's metrics against the index; train.py and eval.py both use this.

    An image that cannot be decoded does not count. Each process of a distributed run evaluates its share of the images;
    all return the same result.

    Args:
        new_labels: (K,) int64, the model's label -> the index's label, negative for none; without it they are equal.
        losses: also compute the training losses, in the same pass; `model` is a FasterRCNN with the index's labels.
        sample: the loader has a sample of the training images: log mAP only, and allow that no image can be decoded.
        on_batch: called after every batch, equally often in every process; it may end the run.

    Raises:
        UserError: no image can be decoded.
    """
    model.eval()
    share_buffers(processes, model)
    own: dict[int, Detections] = {}
    own_losses: dict[int, list[float]] = {}
    title = "Train sample:" if sample else "Test:"
    meter = StepMeter(title, loader, processes=processes.world_size)
    model_time = 0.0
    common = min(all_gather(processes, len(loader)))  # number of batches that every process has
    for batch in meter:
        started = time.perf_counter()
        place = f"evaluation, step {meter.step}, {_shape(batch)}"
        with explain_out_of_memory(place, "lower --batch or --imgsz"), precision.autocast():
            on_device = batch.to(precision.device)
            outputs, terms = model.detect_and_measure(on_device) if losses else (model(on_device), {})
        for image_id, output in zip(batch.image_ids.tolist(), outputs, strict=True):
            if image_id == DAMAGED:
                continue
            found = Detections.from_output(output)
            own[image_id] = found if new_labels is None else found.relabeled(new_labels)
        if losses:
            rows = torch.stack([terms[name] for name in LOSS_TERMS], 1).tolist()
            own_losses |= {i: row for i, row in zip(batch.image_ids.tolist(), rows, strict=True) if i != DAMAGED}
        model_time += time.perf_counter() - started
        if meter.due():
            meter.show({"model_time": f"{model_time / (meter.step + 1):.4f}"}, _memory(precision.device))
        if on_batch is not None and meter.step < common:
            on_batch()
    detections = {image: found for part in all_gather(processes, own) for image, found in part.items()}
    if not sample:
        check_any_decoded(detections, index)
    metrics = broadcast_from_main(processes, lambda: timed_metrics(index, detections, title))
    means = _mean_losses(all_gather(processes, own_losses)) if losses else None
    if means is not None:
        each = "  ".join(f"{name}: {value:.4f}" for name, value in means.items())
        log.info("%s  loss: %.4f  %s", title, sum(means.values()), each)
    if sample:
        log.info("%s  mAP: %.4f  mAP at IoU 0.50: %.4f", title, metrics.ap, metrics.ap50)
    else:
        log.info("IoU metric: bbox\n%s", metrics.table())
    return Evaluation(metrics, detections, means)


def _mean_losses(parts: Sequence[Mapping[int, Sequence[float]]]) -> dict[str, float]:
    """LOSS_TERMS, means over the images of all processes; summed in the images' order, whoever saw them."""
    rows = sorted((image, row) for part in parts for image, row in part.items())
    means = np.array([row for _, row in rows]).mean(0)
    return dict(zip(LOSS_TERMS, means.tolist(), strict=True))


def _memory(device: torch.device) -> dict[str, str]:
    """MiB: the most that tensors had of the GPU so far, or what this process has of the machine."""
    if device.type == "cuda":
        return {"max mem": f"{torch.cuda.max_memory_allocated(device) >> 20}"}
    return {"mem": f"{resident_memory() >> 20}"}


def _shape(batch: Batch) -> str:
    count, height, width, _ = batch.images.shape
    return f"{count} image{'s' if count > 1 else ''} of {width} x {height} px"
