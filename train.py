"""Train a detector: options, data, model, optimizer, schedule, and the loop over epochs.

python train.py --data data_configs/smoke.yaml --model fasterrcnn_resnet50_fpn --epochs 100 --name smoke_training
"""

from utils.cli.script import parse_command_line, run_main
from utils.cli.train_options import TrainOptions

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(TrainOptions, "Train a Faster R-CNN detector.")

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from datasets import DetectionDataset, make_loader
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from torch_utils.checkpoint import seed_everything
from torch_utils.distributed import (
    Processes,
    broadcast_from_main,
    cleanup,
    count_on_machine,
    from_first_of_machine,
    join_processes,
)
from torch_utils.engine import train_one_epoch
from torch_utils.evaluation.evaluation_files import REPORT
from torch_utils.runs.background_writer import BackgroundWriter
from torch_utils.runs.interruption import SaveOrStop
from torch_utils.runs.loggers import check_trackers
from torch_utils.runs.resume import options_of_first_command, restore, run_folder, with_checkpoint
from torch_utils.runs.run import BEST, LAST, Run
from torch_utils.runs.validation import Validation
from torch_utils.training.batch_size import LargestSample, find_batch
from torch_utils.training.ema import MovingAverage
from torch_utils.training.network import fit_anchors, for_training, make_model, set_classifier_loss_of
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.optimization import REFERENCE_BATCH, Schedule, make_optimizer
from torch_utils.training.precision import Precision, pick_precision
from torch_utils.training.sampling import repeat_factors, train_sample
from torch_utils.training.training_state import TrainingState
from torch_utils.training.update import Updater
from utils.augment.config import AugmentationConfig, load_augmentation_config, parse_augmentation_config
from utils.augment.policy import AugmentationPolicy, policy_of
from utils.cli.flags import AUTO
from utils.data_tools.demo import make_demo
from utils.errors import UserError
from utils.files import write_text
from utils.images.image_files import write_image
from utils.labels.anchors import network_boxes
from utils.labels.data_config import DataConfig, load_data_config, parse_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.batch import collate
from utils.loading.image_cache import cache_size, fits_auto_cache, make_cache_files, recent_images_size
from utils.loading.loader import Loader
from utils.loading.samplers import EvalBatchSampler, SampleKey, TrainBatchSampler, cache_slots
from utils.loading.size_rule import SizeRule
from utils.logs import setup_logging
from utils.machine import keep_freed_memory
from utils.slicing.training_slices import with_slices
from utils.visualize.pictures import PREDICTIONS, TRAIN_BATCH, batch_picture
from utils.visualize.windows import check_display, show_window

_UNFROZEN_DECAY = 0.7  # layer-wise, of --unfreeze; ViTDet's for ViT-B, https://arxiv.org/abs/2203.16527, table 9
_DRAWN_SAMPLES = 16
DATA_FAULTS = "data_faults.txt"  # in the run's folder
log = logging.getLogger("train")


def main(options: TrainOptions) -> None:
    """Train from the first epoch, or resume after the last complete one."""
    options, checkpoint = with_checkpoint(options)
    processes = join_processes(options.device, options.dist_url, options.world_size)
    setup_logging(quiet=not processes.is_main)
    _check_machine(options, processes)
    precision = pick_precision(processes.device, options.precision, amp=options.amp)
    data = _open_data(options, checkpoint, processes)
    seed_everything(options.seed, processes.rank)
    model, model_summary = _build_model(options, checkpoint, data, processes.device)

    folder = broadcast_from_main(processes, lambda: run_folder(options))
    setup_logging(log_file=folder / "train.log" if processes.is_main else None, quiet=not processes.is_main)
    log.info("Training %s on %s; results go to %s", options.model, processes.device, folder)
    if processes.is_main:
        _log_data(folder, {"training": data.train.index, "validation": data.valid.index})
    for line in (*(f"Augmentation (--aug {options.aug}): {line}" for line in data.policy.lines()), *model_summary):
        log.info(line)
    if options.batch == AUTO:
        options = replace(options, batch=_largest_batch(options, model, data.train, precision, processes))
    loaders = _make_loaders(options, data, folder, processes)

    average = MovingAverage(model, options.ema_decay) if options.ema else None
    optimizer, schedule = _make_optimizer(options, model, processes, len(loaders.train))
    resumed = options.resume_training
    state = restore(checkpoint, model, optimizer, precision, processes) if resumed else TrainingState()
    writer = BackgroundWriter()
    updater = Updater(
        model, optimizer, schedule, precision, processes, options.accumulate, options.clip_grad,
        average=average, pre_step_hook=writer.wait_until_copied,
    )  # fmt: skip
    guard = NonFiniteGuard(data.train.index, processes, options.max_bad_steps, "A lower --lr may help")
    save_or_stop = SaveOrStop(processes, options.save_minutes)
    metadata = _checkpoint_metadata(options, checkpoint, data, model, folder)
    run = Run(
        folder, updater, state, writer,
        metadata=metadata, guard=guard, save_or_stop=save_or_stop, wandb=options.wandb, mlflow=options.mlflow,
    )  # fmt: skip
    if not resumed:
        run.save()  # a run that is killed in its first epoch can be resumed too
    elif (folder / LAST).resolve() != Path(options.weights).resolve():
        run.save_last()
    if processes.is_main:
        _draw_first_samples(data.train, chain.from_iterable(loaders.sampler), folder, window=options.vis_transformed)
    validation = _make_validation(options, run, data, loaders)
    network = for_training(model, options, processes)
    with save_or_stop, run.with_resume_hint():
        for epoch in range(state.epoch, options.epochs):
            if run.state.epochs_without_improvement >= options.patience:
                log.info("Early stopping: no better mAP for %d epochs", run.state.epochs_without_improvement)
                break
            progress = run.state.progress
            loaders.sampler.set_epoch(epoch, progress.images, multiple_of=options.accumulate)
            progress = train_one_epoch(
                network, updater, loaders.train, epoch,
                guard=guard, progress=progress, start=loaders.sampler.start, on_update=run.poll,
            )  # fmt: skip
            validation.after(progress)
        _finish(options, run, validation, first_epoch=state.epoch)
    cleanup()
    if (folder / BEST).is_file():  # a run of the predecessor's may go on in another folder
        log.info("Best validation mAP %.4f; the model is %s", run.state.best_map, folder / BEST)
    log.info("Results are in %s; look at %s and %s", folder, folder / PREDICTIONS, folder / REPORT)


def _check_machine(options: TrainOptions, processes: Processes) -> None:
    """Refuse what this machine cannot do, before anything is read or written; set up its memory."""
    if processes.device.type == "cpu":
        keep_freed_memory()
    if options.sync_bn and (processes.device.type != "cuda" or not processes.several):
        raise UserError("--sync-bn needs several GPUs: start with torchrun --nproc_per_node=N, or --no-sync-bn")
    if options.batch == AUTO and processes.device.type != "cuda":
        raise UserError(
            "--batch auto tries a GPU's memory; a CPU's cannot be tried, since a process that takes too much of it is "
            "ended: give a number, such as --batch 4"
        )
    if options.vis_transformed:
        check_display("--vis-transformed")
    check_trackers(wandb=options.wandb, mlflow=options.mlflow)


@dataclass(frozen=True)
class _Data:
    """The data set, as train.py uses it."""

    config: DataConfig
    train: DetectionDataset
    valid: DetectionDataset

    @property
    def policy(self) -> AugmentationPolicy:
        return self.train.policy

    @property
    def size_rule(self) -> SizeRule:
        return self.train.size_rule


def _open_data(options: TrainOptions, checkpoint: Mapping[str, Any] | None, processes: Processes) -> _Data:
    """Read YAML and labels; a demo data set is generated on first use."""
    config = _data_config(options, checkpoint, processes)
    open_split = partial(open_index, config, label_type=options.label_type, drop_unknown=options.drop_unknown)
    train_index = open_split("train")
    if options.slice_train:
        train_index = with_slices(
            train_index, height=options.slice_height, width=options.slice_width,
            overlap_height=options.overlap_height_ratio, overlap_width=options.overlap_width_ratio,
            empty=options.slice_empty, seed=options.seed,
        )  # fmt: skip
    valid_index = open_split("valid")
    size_rule = SizeRule(options.imgsz, square=options.square_training)
    policy = _policy(options, _augmentation_config(options, checkpoint))
    train_set = DetectionDataset(train_index, size_rule, policy=policy, seed=options.seed)
    train_set.check_policy()
    return _Data(config, train_set, DetectionDataset(valid_index, size_rule))


def _data_config(options: TrainOptions, checkpoint: Mapping[str, Any] | None, processes: Processes) -> DataConfig:
    """The data set of --data, or that of the resumed run."""
    resumed = checkpoint if options.resume_training else None
    if options.data is not None:
        config = load_data_config(options.data)
    else:
        config = parse_data_config(resumed["data"], Path(options.weights))
    if resumed is not None and list(config.classes) != resumed["data"].get("CLASSES"):
        raise UserError(f"{config.path}: CLASSES differ from those of {options.weights}, which cannot go on with them")
    if config.generate is not None:
        broadcast_from_main(processes, lambda: make_demo(config))
    return config


def _policy(options: TrainOptions, config: AugmentationConfig | None = None) -> AugmentationPolicy:
    return policy_of(
        options.aug, flip=options.flip, mosaic=options.mosaic, multi_scale=options.multi_scale,
        use_train_aug=options.use_train_aug, config=config,
    )  # fmt: skip


def _augmentation_config(options: TrainOptions, checkpoint: Mapping[str, Any] | None) -> AugmentationConfig | None:
    """The transforms of --aug-config; a resumed run has them in its checkpoint, even if the file changed."""
    if options.aug_config is None:
        return None
    saved = checkpoint.get("aug_config") if options.resume_training and "aug_config" not in options.given else None
    if isinstance(saved, str):
        return parse_augmentation_config(saved, Path(options.aug_config))
    return load_augmentation_config(options.aug_config)


def _log_data(folder: Path, indexes: Mapping[str, LabelIndex]) -> None:
    """Log the size of the data set and a summary of its faults; all faults go to a file."""
    faults = []
    for purpose, index in indexes.items():
        index.log_summary(purpose)
        for kind, locations in index.report.items.items():
            faults += [f"{purpose}: {kind}", *(f"  {location}" for location in locations)]
    if faults:
        write_text(folder / DATA_FAULTS, "\n".join(faults) + "\n")
        log.warning("Everything that is missing, repaired or left out is listed in %s", folder / DATA_FAULTS)


def _build_model(
    options: TrainOptions, checkpoint: Mapping[str, Any] | None, data: _Data, device: torch.device
) -> tuple[FasterRCNN, list[str]]:
    """The model on its device, anchors and class weights fitted to the data if requested; and log lines about it."""
    index = data.train.index
    model = make_model(options, checkpoint, len(index.classes))
    summary = [
        fit_anchors(model, options, network_boxes(index, data.size_rule.network_size)),
        *set_classifier_loss_of(model, options, index),
    ]
    model.to_device(device)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    summary.append(f"{sum(p.numel() for p in model.parameters()):,} total parameters.")
    summary.append(f"{trainable:,} training parameters.")
    return model, summary


def _largest_batch(
    options: TrainOptions, model: FasterRCNN, dataset: DetectionDataset, precision: Precision, processes: Processes
) -> int:
    """The batch size of --batch auto."""
    max_boxes = max(1, dataset.index.max_boxes * (1 + dataset.policy.num_mixed))
    sample = LargestSample(*dataset.base_sizes().max(0).tolist(), max_boxes)
    return find_batch(
        model, sample, precision, processes, images=len(dataset), optimizer=options.optimizer, ema=options.ema
    )


def _make_optimizer(
    options: TrainOptions, model: FasterRCNN, processes: Processes, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    lr, images = options.learning_rate(), options.batch * processes.world_size * options.accumulate
    if options.scale_lr:
        lr *= images / REFERENCE_BATCH
        log.info(
            "Learning rate (--scale-lr): %g x %d images / %d = %g", options.learning_rate(), images, REFERENCE_BATCH, lr
        )
    optimizer = make_optimizer(
        model,
        options.optimizer,
        lr,
        weight_decay=options.weight_decay,
        decay_all=options.decay_all,
        stages=model.stages,
        layer_decay=options.layer_decay or (_UNFROZEN_DECAY if options.unfreeze else 1.0),
    )
    updates = -(-steps_per_epoch // options.accumulate)
    return optimizer, Schedule(lr, updates, options.epochs, options.schedule_kind(), options.milestones or ())


def _checkpoint_metadata(
    options: TrainOptions, checkpoint: Mapping[str, Any] | None, data: _Data, model: FasterRCNN, folder: Path
) -> dict[str, Any]:
    """Entries of every checkpoint besides weights and state, see docs/checkpoints.md."""
    config = data.policy.config
    return {
        "model_name": options.model,
        "model_options": model.build_options.as_dict(),
        "classes": list(data.config.classes),
        "data": dict(data.config.raw),
        "size_rule": data.size_rule.as_dict(),
        "aug_config": config.text if config else None,
        "options": {**options.as_dict(), **options_of_first_command(options, checkpoint, folder)},
    }


@dataclass(frozen=True)
class _Loaders:
    sampler: TrainBatchSampler  # of train
    train: Loader
    valid: Loader
    sample: Loader | None  # some training images without augmentation


def _make_loaders(options: TrainOptions, data: _Data, folder: Path, processes: Processes) -> _Loaders:
    _cache_images(options.cache, folder, processes, (data.train, data.valid))
    share = {"rank": processes.rank, "world_size": processes.world_size}
    repeat = repeat_factors(data.train.index, options.repeat_factor) if options.repeat_factor else None
    sampler = TrainBatchSampler(
        len(data.train), options.batch, seed=options.seed, num_mixed=data.policy.num_mixed, repeat=repeat, **share
    )
    if options.cache == "auto":
        _cache_recent_images(data.train, sampler, options.workers, processes)
    valid_sampler = EvalBatchSampler(data.valid.index, data.size_rule, options.batch, **share)
    if repeat is not None:
        log.info("Images shown in an epoch (--repeat-factor %g): %d", options.repeat_factor, sampler.epoch_images)
    reported_faults: set[str] = set()  # damaged training images are logged once
    return _Loaders(
        sampler,
        make_loader(data.train, sampler, options.workers, processes.device, reported_faults=reported_faults),
        make_loader(data.valid, valid_sampler, options.workers, processes.device),
        _sample_loader(options, data.train, processes, reported_faults),
    )


def _cache_images(kind: str, folder: Path, processes: Processes, datasets: Sequence[DetectionDataset]) -> None:
    """Give the data sets a cache that all processes of a machine share, as --cache says."""
    sizes = [cache_size(dataset.base_sizes()) for dataset in datasets] if kind != "off" else [0] * len(datasets)
    paths, message = from_first_of_machine(processes, lambda: make_cache_files(kind, sizes, folder))
    log.info(message)
    for dataset, path in zip(datasets, paths, strict=True):
        if path is not None:
            dataset.keep_images(path)


def _cache_recent_images(
    dataset: DetectionDataset, sampler: TrainBatchSampler, workers: int, processes: Processes
) -> None:
    """Give a training set that is too large for memory a cache of the images that samples mix in."""
    slots = cache_slots(sampler, workers)
    size = recent_images_size(slots, dataset.base_sizes()) * count_on_machine(processes)
    if slots == 0 or dataset.keeps_images or not fits_auto_cache(size):
        return
    try:
        dataset.keep_recent(slots)
    except OSError as error:
        log.warning("No memory for the images that samples mix in (%s): they are decoded again", error.strerror)
        return
    gib = size / (1 << 30)
    log.info("Those of the last %d samples are kept, to be mixed into others: up to %.2f GiB", slots, gib)


def _sample_loader(
    options: TrainOptions, dataset: DetectionDataset, processes: Processes, reported_faults: set[str]
) -> Loader | None:
    """The training images that are evaluated after every epoch, without augmentation; None for none."""
    images = train_sample(len(dataset), options.train_sample, options.seed)
    if not images:
        return None
    share = {"rank": processes.rank, "world_size": processes.world_size}
    sampler = EvalBatchSampler(dataset.index, dataset.size_rule, options.batch, images=images, **share)
    workers = min(options.workers, 1)  # few images, mostly cached: more workers would only take memory
    return make_loader(dataset.plain(), sampler, workers, processes.device, reported_faults=reported_faults)


def _make_validation(options: TrainOptions, run: Run, data: _Data, loaders: _Loaders) -> Validation:
    return Validation(
        run, data.valid.index, data.train.index,
        valid=loaders.valid, sample=loaders.sample, trained=loaders.train,
        info={
            "model": options.model,
            "data": f"{data.config.path}, valid: {len(data.valid):,} images",
            "image size": str(data.size_rule),
        },
        single_batch=options.batch if data.config.save_valid_prediction_images else None,
    )  # fmt: skip


def _draw_first_samples(dataset: DetectionDataset, keys: Iterable[SampleKey], folder: Path, *, window: bool) -> None:
    """Draw the first training samples, augmented and resized as the network will see them."""
    samples = [dataset[key] for key in islice(keys, _DRAWN_SAMPLES)]
    picture = batch_picture(collate(samples), dataset.index.classes)
    write_image(folder / TRAIN_BATCH, picture)
    if window:
        show_window("first training samples", picture)


def _finish(options: TrainOptions, run: Run, validation: Validation, *, first_epoch: int) -> None:
    """Complete the report, and write what is still to be written."""
    if run.state.epoch == first_epoch:
        flag = "--patience" if run.state.epochs_without_improvement >= options.patience else "--epochs"
        log.info("Nothing is left to train: %d epochs are done; a larger %s trains on", first_epoch, flag)
        validation.redraw()
    validation.complete_report()
    run.close()
    run.guard.check_end()


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
