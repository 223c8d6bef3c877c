"""Measure a detector on labeled images: COCO's numbers, by the evaluator that train.py uses.

python eval.py --weights outputs/training/smoke_training/best_model.pth --data data_configs/smoke.yaml --verbose
"""

from utils.cli.options import EvalOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(EvalOptions, "Evaluate a detector on labeled images.")

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets import DetectionDataset, EvalBatchSampler, make_loader
from models.create_fasterrcnn_model import open_detector
from models.rcnn.errors import ModelError
from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import Processes, broadcast_from_main, cleanup, join_processes, share_faults
from torch_utils.engine import Evaluation, evaluate
from torch_utils.evaluation.detector_eval import evaluate_detector
from torch_utils.evaluation.evaluation_files import REPORT, truth_file, write_coco_results, write_evaluation
from torch_utils.evaluation.tta import SixViews
from torch_utils.evaluation.voc_eval import voc_metrics
from torch_utils.predict import load_detector, resolve_size_rule
from torch_utils.training.precision import Precision, pick_precision
from utils.cli.train_options import TrainOptions
from utils.data_tools.demo import make_demo
from utils.detect.onnx_file import is_onnx
from utils.errors import UserError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.size_rule import Canvas, SizeRule
from utils.logs import setup_logging
from utils.run_folder import EVALUATION, given_folder, numbered_folder
from utils.slicing.sliced_detector import slice_detector
from utils.visualize.pictures import write_prediction_pictures

log = logging.getLogger("eval")

_MODEL = "fasterrcnn_resnet50_fpn"  # without --weights and --model
_BATCH = 8  # images per step of a model that does not know the batch of its training
_SPLIT_WORDS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class _Subject:
    """What is measured, whatever runs it."""

    name: str
    class_names: Sequence[str]
    size_rule: SizeRule | Canvas
    trained_with: TrainOptions
    measure: Callable[[LabelIndex, int, np.ndarray | None], Evaluation]  # of an index, a batch size and new labels


def main(options: EvalOptions) -> None:
    """Evaluate on one split; numbers, curves, pictures and a page of all go to the output folder."""
    processes = join_processes(options.device, "env://", 1)
    setup_logging(quiet=not processes.is_main)
    config = load_data_config(options.data)
    split = options.split or ("test" if "test" in config.splits else "valid")
    if config.generate is not None:
        broadcast_from_main(processes, lambda: make_demo(config))
    config.split(split)
    results = _results_file(options.save_json)
    by_interface = options.wants_slices() or options.tensorrt or is_onnx(options.weights)
    subject = (_detector if by_interface else _network)(options, processes)
    new_labels = _new_labels(subject.class_names, config.classes, config.path)
    label_type = options.label_type or subject.trained_with.label_type
    drop_unknown = options.drop_unknown or subject.trained_with.drop_unknown
    index = open_index(config, split, label_type, drop_unknown=drop_unknown)
    log.info("Evaluating %s on %s at %s", subject.name, processes.device, subject.size_rule)
    if processes.is_main:
        index.log_summary(_SPLIT_WORDS[split])

    folder = broadcast_from_main(processes, lambda: _output_folder(options.output))
    found = subject.measure(index, options.batch or subject.trained_with.batch, new_labels)
    if options.verbose:
        log.info(found.metrics.class_table())
    if processes.is_main:
        info = {
            "model": subject.name,
            "weights": options.weights or "published COCO weights",
            "data": f"{config.path}, {split}: {len(found.detections):,} images",
            "image size": f"{subject.size_rule}{_views(options)}",
        }
        _write(folder, index, found, options, info, results)
    cleanup()


def _views(options: EvalOptions) -> str:
    """How each image is looked at, if not as a whole and once."""
    if options.slice:
        return f", in slices of {options.slice_width} x {options.slice_height} px"
    return ", six views of each image" if options.tta else ""


def _network(options: EvalOptions, processes: Processes) -> _Subject:
    """A checkpoint or a model with COCO weights, measured as training measures."""
    checkpoint = load_checkpoint(Path(options.weights)) if options.weights else None
    trained_with = TrainOptions(batch=_BATCH).over(checkpoint.get("options", {}) if checkpoint else {})
    detector = open_detector(checkpoint, options.model, default=_MODEL)
    size_rule = resolve_size_rule(detector, options.weights, imgsz=options.imgsz, square=options.square_training)

    def measure(index: LabelIndex, batch_size: int, new_labels: np.ndarray | None) -> Evaluation:
        batches = EvalBatchSampler(index, size_rule, batch_size, rank=processes.rank, world_size=processes.world_size)
        loader = make_loader(DetectionDataset(index, size_rule), batches, options.workers, processes.device)
        model = detector.model.to_device(processes.device)
        found = evaluate(
            SixViews(model) if options.tta else model,
            loader,
            index,
            precision=_precision(processes.device, trained_with),
            processes=processes,
            new_labels=new_labels,
        )
        share_faults(processes, loader)
        return found

    return _Subject(detector.name, detector.class_names, size_rule, trained_with, measure)


def _detector(options: EvalOptions, processes: Processes) -> _Subject:
    """A file of export.py, or any detector on slices: measured through the interface that inference has, in fp32."""
    what = "--slice" if options.slice else options.weights
    if options.tta:
        raise UserError(f"--tta: {what} takes no views of other sizes: drop one of them")
    if processes.several:
        raise UserError(f"{what} is evaluated by one process: start eval.py without a launcher")
    detector = load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_training,
        default=_MODEL, tensorrt=options.tensorrt,
    )  # fmt: skip
    checkpoint = load_checkpoint(Path(options.weights)) if options.weights and not is_onnx(options.weights) else {}
    trained_with = TrainOptions(batch=_BATCH).over(checkpoint.get("options", {}))
    info = detector.info
    log.info("%s runs on %s", info.source, info.runs_on)

    def measure(index: LabelIndex, batch_size: int, new_labels: np.ndarray | None) -> Evaluation:
        subject = detector
        if options.slice:  # the slices of one image fill batches
            subject, batch_size = slice_detector(detector, options, batch=batch_size), 1
        return evaluate_detector(subject, index, batch_size=batch_size, workers=options.workers, new_labels=new_labels)

    return _Subject(info.name, info.class_names, info.size_rule, trained_with, measure)


def _precision(device: torch.device, trained_with: TrainOptions) -> Precision:
    """That of the training; fp32, and a line about it, where this device has not got it."""
    try:
        return pick_precision(device, trained_with.precision, amp=trained_with.amp)
    except UserError as error:
        log.warning("Evaluating in fp32: %s", error)
        return Precision(device)


def _write(
    folder: Path,
    index: LabelIndex,
    found: Evaluation,
    options: EvalOptions,
    info: Mapping[str, str],
    results: Path | None,
) -> None:
    """Everything that an evaluation leaves behind."""
    numbers = {}
    if options.voc_ap:
        voc = voc_metrics(index, found.detections, int(options.voc_ap))
        log.info("\n".join(voc.lines() if options.verbose else voc.lines()[:1]))
        numbers["voc"] = voc.as_dict()
    try:
        analysis = write_evaluation(
            folder, index, found.detections, found.metrics,
            title=f"Evaluation of {Path(info['weights']).name}", info=info, numbers=numbers,
        )  # fmt: skip
        write_prediction_pictures(folder, index, found.detections, threshold=analysis.threshold)
        if results is not None:
            write_coco_results(results, index, found.detections)
            log.info("COCO results are in %s, their ground truth in %s", results, truth_file(results))
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from None
    log.info("Best threshold of the score, by mean F1: %.3f", analysis.threshold)
    log.info("Results are in %s; look at %s", folder, folder / REPORT)


def _results_file(wish: str | None) -> Path | None:
    """The file of --save-json, before an hour is spent on it."""
    if wish is None:
        return None
    path = Path(wish)
    if truth_file(path).exists() and not path.exists():
        raise UserError(f"--save-json {wish}: {truth_file(path)} would be overwritten: choose another name")
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"--save-json {wish}: {reason}; expected a file name in a folder that exists")
    return path


def _output_folder(wish: str | None) -> Path:

    return given_folder(Path(wish)) if wish else numbered_folder(EVALUATION)


def _new_labels(model_classes: Sequence[str], data_classes: Sequence[str], path: Path) -> np.ndarray | None:
    """The model's label -> the data set's label of the same name, -1 for none; None if nothing changes."""
    if list(model_classes) == list(data_classes):
        return None
    missing = [name for name in data_classes if name not in model_classes]
    if missing:
        raise UserError(
            f"{path}: CLASSES has {', '.join(missing)}, which the model does not know; "
            f"it was trained on {', '.join(model_classes[1:])}"
        )
    number = {name: label for label, name in enumerate(data_classes)}
    return np.array([number.get(name, -1) for name in model_classes], np.int64)


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
