"""The two loops: an epoch of training, and a pass over a split that measures it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.distributed import Processes, all_gather, broadcast_from_main, share_buffers
from torch_utils.evaluation.result import Evaluation, check_any_decoded, timed_metrics
from torch_utils.training.loss_watch import NonFiniteGuard, Update
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS, EpochProgress
from torch_utils.training.update import Updater
from utils.detect.detections import Detections
from utils.labels.index import LabelIndex
from utils.loading.batch import Batch
from utils.loading.loader import Loader
from utils.loading.sample import DAMAGED
from utils.machine import memory_watch, resident_memory
from utils.progress import StepMeter

_MORE_DATA = (
    "More than 30 % of an epoch was spent waiting for data: more --workers, up to one a core, or a --cache (ram, disk) "
    "of the resized images, may make it faster"
)
_LESS_MEMORY = (
    "lower --batch (--accumulate makes up for it) or --imgsz, or add --amp, or --activation-checkpointing for "
    "transformers and timm/ models"
)
Pause = Callable[[Callable[[], EpochProgress]], None]
log = logging.getLogger(__name__)


def train_one_epoch(
    network: nn.Module,
    updater: Updater,
    loader: Loader,
    epoch: int,
    *,
    watch: NonFiniteGuard,
    before: EpochProgress | None = None,
    start: int = 0,
    pause: Pause | None = None,
) -> EpochProgress:
    """Train on every batch once.

    Args:
        network: the updater's model, or its wrapper in a distributed run.
        epoch: from 0; with the schedule it gives the learning rate.
        watch: looks at updates whose loss is not finite, which are left out.
        before: what there is of the epoch already.
        start: the step that the loader begins with.
        pause: called after every update, with a function that says what there is of the epoch then; it may end the run.

    Returns:
        The whole epoch.

    Raises:
        UserError: too many updates in a row were left out.
    """
    network.train()
    precision, steps, size = updater.precision, len(loader), updater.accumulate
    device = precision.device
    losses = torch.zeros(steps, len(LOSS_TERMS), device=device)
    is_bad = torch.zeros(steps, dtype=torch.bool, device=device)
    images: list[Tensor] = []
    shown, before = 0, before or EpochProgress()

    def so_far(end: int) -> EpochProgress:
        """All before step `end`."""
        means = torch.stack([*all_gather(updater.processes, losses[start:end].cpu())]).mean(0)
        return before.joined(shown * updater.processes.world_size, means, is_bad[start:end].cpu())

    processes = updater.processes.world_size
    meter = StepMeter(f"Epoch: [{epoch}]", loader, start=start, processes=processes, advice=_MORE_DATA)
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
        shown += len(batch.image_ids)
        if step == last:
            with memory_watch(place, _LESS_MEMORY):  # the first update makes the optimizer's state
                found = updater.finish(update, losses[first : step + 1])
            is_bad[first : step + 1] = found
            watch.note(Update(epoch, step, losses[first : step + 1], images, found), last=step == steps - 1)
            if pause is not None:
                pause(partial(so_far, step + 1))
        if meter.due():  # reading values from a GPU waits for it
            total = losses[: step + 1].sum(1).cpu()
            mean = total[start:][~is_bad[start : step + 1].cpu()].mean()
            meter.show({"lr": f"{lr:.6f}", "loss": f"{total[-1]:.4f} ({mean:.4f})"}, _memory(device))
    return so_far(steps)


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
    pause: Callable[[], None] | None = None,
) -> Evaluation:
    """Detect in every image and compare with the index's boxes; train.py and eval.py both measure with this.

    An image that cannot be decoded does not count. Each process of a distributed run sees its own images; all get the
    same result.

    Args:
        new_labels: the model's label -> the index's label, negative for none; without it they are the same.
        losses: measure those of the training too, from the same pass; `model` is a FasterRCNN of the index's labels.
        sample: the loader has some training images, for a glance: log mAP alone, and take it if none can be decoded.
        pause: called after every batch, as often in every process; it may end the run.

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
    common = min(all_gather(processes, len(loader)))  # batches that every process has
    for batch in meter:
        started = time.perf_counter()
        place = f"evaluation, step {meter.step}, {_shape(batch)}"
        with memory_watch(place, "lower --batch or --imgsz"), precision.autocast():
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
        if pause is not None and meter.step < common:
            pause()
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
