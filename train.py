"""Train a detector: options, data, model, optimizer, schedule, and the loop over epochs.

python train.py --data data_configs/smoke.yaml --model fasterrcnn_resnet50_fpn --epochs 100 --name smoke_training
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.rcnn.errors import ModelError
from utils.cli.flags import AUTO
from utils.cli.script import run_script
from utils.cli.train_options import TrainOptions
from utils.errors import UserError

if TYPE_CHECKING:  # heavy imports wait until they are needed, so that --help answers at once
    import torch

    from datasets import DetectionDataset, SampleKey, TrainBatchSampler
    from models.rcnn.detector import FasterRCNN
    from torch_utils.distributed import Processes
    from torch_utils.training.optimization import Schedule
    from utils.augment.config import AugmentationConfig
    from utils.labels.data_config import DataConfig
    from utils.labels.index import LabelIndex
    from utils.loading.loader import Loader
    from utils.loading.size_rule import SizeRule

_UNFROZEN_DECAY = 0.7  # layer-wise, of --unfreeze; ViTDet's for ViT-B, https://arxiv.org/abs/2203.16527, table 9
_DRAWN = 16  # samples in the picture of them
DATA_FAULTS = "data_faults.txt"  # in the run's folder
log = logging.getLogger("train")


def main(options: TrainOptions) -> None:
    """Train from the first epoch, or go on after the last whole one."""
    from datasets import DetectionDataset
    from torch_utils.checkpoint import seed_everything
    from torch_utils.distributed import broadcast_from_main, cleanup, join_processes
    from torch_utils.engine import train_one_epoch
    from torch_utils.evaluation.evaluation_files import REPORT
    from torch_utils.runs.interruption import SaveOrStop
    from torch_utils.runs.resume import own_options, restore, with_checkpoint
    from torch_utils.runs.run import BEST, LAST, Run
    from torch_utils.runs.validation import Validation
    from torch_utils.training.batch_size import LargestSample, find_batch
    from torch_utils.training.ema import MovingAverage
    from torch_utils.training.loss_watch import NonFiniteGuard
    from torch_utils.training.network import for_training
    from torch_utils.training.precision import pick_precision
    from torch_utils.training.training_state import TrainingState
    from torch_utils.training.update import Updater
    from utils.labels.index import open_index
    from utils.loading.size_rule import SizeRule
    from utils.logs import setup_logging
    from utils.machine import keep_memory
    from utils.visualize.pictures import PREDICTIONS

    options, checkpoint = with_checkpoint(options)
    processes = join_processes(options.device, options.dist_url, options.world_size)
    if processes.device.type == "cpu":
        keep_memory()  # what a step computes with would be mapped anew in the next one
    setup_logging(quiet=not processes.is_main)
    _check_wishes(options, processes)
    precision = pick_precision(processes.device, options.precision, amp=options.amp)
    config = _data_config(options, checkpoint, processes)
    reading = partial(open_index, config, label_type=options.label_type, drop_unknown=options.drop_unknown)
    train_index, valid_index = options.with_slices(reading("train"), options.seed), reading("valid")
    size_rule = SizeRule(options.imgsz, square=options.square_training)
    policy = options.policy(_augmentation_config(options, checkpoint))
    train_set = DetectionDataset(train_index, size_rule, policy=policy, seed=options.seed)
    train_set.try_policy()
    seed_everything(options.seed, processes.rank)
    model, model_lines = _model(options, checkpoint, train_index, size_rule, processes.device)

    folder = broadcast_from_main(processes, lambda: _run_folder(options))
    setup_logging(log_file=folder / "train.log" if processes.is_main else None, quiet=not processes.is_main)
    log.info("Training %s on %s; results go to %s", options.model, processes.device, folder)
    if processes.is_main:
        _log_data(folder, {"training": train_index, "validation": valid_index})
    for line in (*(f"Augmentation (--aug {options.aug}): {line}" for line in policy.lines()), *model_lines):
        log.info(line)

    if options.batch == AUTO:
        boxes = max(1, train_index.most_boxes * (1 + policy.others))
        sample = LargestSample(*train_set.base_sizes().max(0).tolist(), boxes)
        wishes = {"images": len(train_set), "optimizer": options.optimizer, "ema": options.ema}
        options = replace(options, batch=find_batch(model, sample, precision, processes, **wishes))
    valid_set = DetectionDataset(valid_index, size_rule)
    _keep_images(options.cache, folder, processes, (train_set, valid_set))
    loaders = _loaders(train_set, valid_set, options, processes)

    average = MovingAverage(model, options.ema_decay) if options.ema else None
    optimizer, schedule = _optimizer(model, options, processes, len(loaders.train))
    resumed = options.resume_training
    state = restore(checkpoint, model, optimizer, precision, processes) if resumed else TrainingState()
    updater = Updater(
        model, optimizer, schedule, precision, processes, options.accumulate, options.clip_grad, average=average
    )
    about = {
        "model_name": options.model,
        "model_options": model.build_options.as_dict(),
        "classes": list(config.classes),
        "data": dict(config.raw),
        "size_rule": size_rule.as_dict(),
        "aug_config": policy.config.text if policy.config else None,
        "options": {**options.as_dict(), **own_options(options, checkpoint, folder)},
    }
    watch = NonFiniteGuard(train_index, processes, options.max_bad_steps, "A lower --lr may help")
    interruption = SaveOrStop(processes, options.save_minutes)
    sinks = {"wandb": options.wandb, "mlflow": options.mlflow}
    run = Run(folder, updater, state, about=about, watch=watch, interruption=interruption, **sinks)
    if not resumed:
        run.save()  # a run that is killed in its first epoch can be resumed too
    elif folder.resolve() != Path(options.weights).parent.resolve() or Path(options.weights).name != LAST:
        run.save_last()
    if processes.is_main:
        _draw_first_samples(train_set, chain.from_iterable(loaders.batches), folder, window=options.vis_transformed)

    validation = Validation(
        run, valid_index, train_index,
        valid=loaders.valid, sample=loaders.sample, trained=loaders.train,
        info={
            "model": options.model,
            "data": f"{config.path}, valid: {len(valid_index):,} images",
            "image size": str(size_rule),
        },
        single_batch=options.batch if config.save_valid_prediction_images else None,
    )  # fmt: skip
    network = for_training(model, options, processes)
    first_epoch = state.epoch
    with interruption, run.with_resume_hint():
        for epoch in range(first_epoch, options.epochs):
            if run.state.epochs_without_improvement >= options.patience:
                log.info("Early stopping: no better mAP for %d epochs", run.state.epochs_without_improvement)
                break
            before = run.state.progress
            loaders.batches.go_to(epoch, before.images, multiple_of=options.accumulate)
            done = train_one_epoch(
                network, updater, loaders.train, epoch,
                watch=watch, before=before, start=loaders.batches.start, pause=run.pause,
            )  # fmt: skip
            validation.after(done)
        if run.state.epoch == first_epoch:
            more = "--patience" if run.state.epochs_without_improvement >= options.patience else "--epochs"
            log.info("Nothing is left to train: %d epochs are done; a larger %s trains on", first_epoch, more)
            validation.redraw()
        validation.complete_report()
        run.close()
        watch.check_end()
    cleanup()
    if (folder / BEST).is_file():  # a run of the predecessor's may go on in another folder
        log.info("Best validation mAP %.4f; the model is %s", run.state.best_map, folder / BEST)
    log.info("Results are in %s; look at %s and %s", folder, folder / PREDICTIONS, folder / REPORT)


def _check_wishes(options: TrainOptions, processes: "Processes") -> None:
    """Refuse what this machine cannot do before anything is read or written."""
    from torch_utils.runs.loggers import check_trackers
    from utils.visualize.windows import check_display

    options.schedule_kind()
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


def _data_config(options: TrainOptions, checkpoint: Mapping[str, Any] | None, processes: "Processes") -> "DataConfig":
    """The data set of --data, or that of the run that is resumed; a demo is drawn if it is not there yet."""
    from torch_utils.distributed import broadcast_from_main
    from utils.data_tools.demo import make_demo
    from utils.labels.data_config import load_data_config, parse_data_config

    resumed = checkpoint if options.resume_training else None
    if options.data is not None:
        config = load_data_config(options.data)
    elif resumed is not None:
        config = parse_data_config(resumed["data"], Path(options.weights))
    else:
        raise UserError("--data is missing: give a data set's YAML file, such as --data data_configs/demo.yaml")
    if resumed is not None and list(config.classes) != resumed["data"].get("CLASSES"):
        raise UserError(f"{config.path}: CLASSES differ from those of {options.weights}, which cannot go on with them")
    if config.generate is not None:
        broadcast_from_main(processes, lambda: make_demo(config))
    return config


def _augmentation_config(options: TrainOptions, checkpoint: Mapping[str, Any] | None) -> "AugmentationConfig | None":
    """The transforms of --aug-config; a run that is resumed has them with it, whatever became of the file."""
    from utils.augment.config import load_augmentation_config, parse_augmentation_config

    if options.aug_config is None:
        return None
    kept = checkpoint.get("aug_config") if options.resume_training and "aug_config" not in options.given else None
    if isinstance(kept, str):
        return parse_augmentation_config(kept, Path(options.aug_config))
    return load_augmentation_config(options.aug_config)


def _optimizer(
    model: "FasterRCNN", options: TrainOptions, processes: "Processes", batches: int
) -> "tuple[torch.optim.Optimizer, Schedule]":
    """The optimizer, and its learning rate over a run with so many batches an epoch."""
    from torch_utils.training.optimization import REFERENCE_BATCH, Schedule, make_optimizer

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
    updates = -(-batches // options.accumulate)
    return optimizer, Schedule(lr, updates, options.epochs, options.schedule_kind(), options.milestones or ())


def _run_folder(options: TrainOptions) -> Path:
    """The folder of the run that is resumed, or a new one, with the run so far if it is resumed elsewhere."""
    from torch_utils.runs.resume import carry_over
    from torch_utils.runs.run import LAST
    from utils.run_folder import TRAINING, given_folder, named_folder, numbered_folder

    resumed = Path(options.weights).parent if options.resume_training else None
    wished = Path(options.project_dir) if options.project_dir else TRAINING / options.name if options.name else resumed
    if resumed is not None and wished.resolve() == resumed.resolve():
        return resumed
    if wished is None:
        folder = numbered_folder(TRAINING)
    elif options.project_dir:
        folder = given_folder(wished, LAST)
    else:
        folder = named_folder(TRAINING, options.name)
        if folder != wished:
            log.info("%s holds an earlier run: this one goes to %s", wished, folder)
    if resumed is not None:
        carry_over(resumed, folder)
    return folder


def _log_data(folder: Path, indexes: Mapping[str, "LabelIndex"]) -> None:
    """What there is to train on, and what is wrong with it: in short here, in full in a file."""
    from utils.files import write_text

    faults = []
    for purpose, index in indexes.items():
        index.log_summary(purpose)
        for kind, places in index.report.found.items():
            faults += [f"{purpose}: {kind}", *(f"  {place}" for place in places)]
    if faults:
        write_text(folder / DATA_FAULTS, "\n".join(faults) + "\n")
        log.warning("All that was missing, mended or left out is in %s", folder / DATA_FAULTS)


def _keep_images(kind: str, folder: Path, processes: "Processes", datasets: Sequence["DetectionDataset"]) -> None:
    """Give the data sets a cache that all processes of a machine share."""
    from torch_utils.distributed import from_first_of_machine
    from utils.loading.image_cache import cache_size, make_cache_files

    needs = [cache_size(dataset.base_sizes()) for dataset in datasets] if kind != "off" else [0] * len(datasets)
    paths, said = from_first_of_machine(processes, lambda: make_cache_files(kind, needs, folder))
    log.info(said)
    for dataset, path in zip(datasets, paths, strict=True):
        if path is not None:
            dataset.keep_images(path)


def _model(
    options: TrainOptions,
    checkpoint: Mapping[str, Any] | None,
    train_index: "LabelIndex",
    size_rule: "SizeRule",
    device: "torch.device",
) -> "tuple[FasterRCNN, list[str]]":
    """The network on its device, fitted to the training boxes where the options say so, and what to log of it."""
    from torch_utils.training.network import fit_anchors, make_model, weigh_classes
    from utils.labels.anchors import network_boxes

    model = make_model(options, checkpoint, len(train_index.classes))
    lines = [fit_anchors(model, options, network_boxes(train_index, size_rule))]
    lines += weigh_classes(model, options, train_index)
    model.to_device(device)
    lines.append(f"{sum(p.numel() for p in model.parameters()):,} total parameters.")
    lines.append(f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} training parameters.")
    return model, lines


@dataclass(frozen=True)
class _Loaders:
    """What an epoch reads."""

    batches: "TrainBatchSampler"  # of train
    train: "Loader"
    valid: "Loader"
    sample: "Loader | None"  # of training images as they are


def _loaders(
    train_set: "DetectionDataset", valid_set: "DetectionDataset", options: TrainOptions, processes: "Processes"
) -> _Loaders:
    from datasets import EvalBatchSampler, TrainBatchSampler, make_loader
    from torch_utils.training.sampling import repeat_factors

    share = {"rank": processes.rank, "world_size": processes.world_size}
    repeat = repeat_factors(train_set.index, options.repeat_factor) if options.repeat_factor else None
    train_batches = TrainBatchSampler(
        len(train_set), options.batch, seed=options.seed, others=train_set.policy.others, repeat=repeat, **share
    )
    if options.cache == "auto":
        _keep_recent(train_set, train_batches, options.workers, processes)
    valid_batches = EvalBatchSampler(valid_set.index, valid_set.size_rule, options.batch, **share)
    if repeat is not None:
        log.info("Images shown in an epoch (--repeat-factor %g): %d", options.repeat_factor, train_batches.shown)
    reported_faults: set[str] = set()  # damaged training images are named once
    return _Loaders(
        train_batches,
        make_loader(train_set, train_batches, options.workers, processes.device, reported_faults=reported_faults),
        make_loader(valid_set, valid_batches, options.workers, processes.device),
        _sample_loader(train_set, options, processes, reported_faults),
    )


def _keep_recent(
    train_set: "DetectionDataset", batches: "TrainBatchSampler", workers: int, processes: "Processes"
) -> None:
    """Give a training set of which there is too much to keep memory for the images that samples mix in."""
    from datasets import cache_slots
    from torch_utils.distributed import count_on_machine
    from utils.loading.image_cache import recent_size, worth_keeping

    places = cache_slots(batches, workers)
    size = recent_size(places, train_set.base_sizes())
    everyones = size * count_on_machine(processes)
    if places == 0 or train_set.keeps_images or not worth_keeping(everyones):
        return
    try:
        train_set.keep_recent(places)
    except OSError as error:
        log.warning("No memory for the images that samples mix in (%s): they are decoded again", error.strerror)
        return
    gib = everyones / (1 << 30)
    log.info("Those of the last %d samples are kept, to be mixed into others: up to %.2f GiB", places, gib)


def _sample_loader(
    train_set: "DetectionDataset", options: TrainOptions, processes: "Processes", reported_faults: set[str]
) -> "Loader | None":
    """The training images that are measured after every epoch, as they are; None without any."""
    from datasets import EvalBatchSampler, make_loader
    from torch_utils.training.sampling import train_sample

    images = train_sample(len(train_set), options.train_sample, options.seed)
    if not images:
        return None
    share = {"rank": processes.rank, "world_size": processes.world_size}
    batches = EvalBatchSampler(train_set.index, train_set.size_rule, options.batch, images=images, **share)
    workers = min(options.workers, 1)  # they are few, and in a cache mostly: more would hold memory for nothing
    return make_loader(train_set.plain(), batches, workers, processes.device, reported_faults=reported_faults)


def _draw_first_samples(
    train_set: "DetectionDataset", picks: "Iterable[SampleKey]", folder: Path, *, window: bool
) -> None:
    """A picture of the first training samples, augmented and resized as the network will see them."""
    from utils.images.image_files import write_image
    from utils.loading.batch import collate
    from utils.visualize.pictures import TRAIN_BATCH, batch_picture
    from utils.visualize.windows import show_window

    samples = [train_set[pick] for pick in islice(picks, _DRAWN)]
    picture = batch_picture(collate(samples), train_set.index.classes)
    write_image(folder / TRAIN_BATCH, picture)
    if window:
        show_window("first training samples", picture)


if __name__ == "__main__":
    run_script(main, TrainOptions, "Train a Faster R-CNN detector.", user_errors=(ModelError,))
