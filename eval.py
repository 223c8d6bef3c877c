"""Evaluate a detector on labeled images with COCO metrics, by the same evaluator as train.py.

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

from datasets import DetectionDataset, make_loader
from models.create_fasterrcnn_model import open_detector
from models.rcnn.errors import ModelError
from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import Processes, broadcast_from_main, cleanup, join_processes, share_faults
from torch_utils.engine import evaluate
from torch_utils.evaluation.detector_eval import evaluate_detector
from torch_utils.evaluation.evaluation_files import REPORT, ground_truth_file, write_coco_results, write_evaluation
from torch_utils.evaluation.result import Evaluation
from torch_utils.evaluation.tta import TTADetector
from torch_utils.evaluation.voc_eval import voc_metrics
from torch_utils.predict import load_detector, resolve_size_rule
from torch_utils.training.precision import Precision, pick_precision
from utils.cli.train_options import TrainOptions
from utils.data_tools.demo import make_demo
from utils.detect.onnx_file import is_onnx
from utils.errors import UserError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.samplers import EvalBatchSampler
from utils.loading.size_rule import Canvas, SizeRule
from utils.logs import setup_logging
from utils.run_folder import EVALUATION, given_folder, numbered_folder
from utils.slicing.sliced_detector import slice_detector
from utils.visualize.pictures import write_prediction_pictures

log = logging.getLogger("eval")

_MODEL = "fasterrcnn_resnet50_fpn"  # default without --weights and --model
_BATCH = 8  # images per step, for weights that do not store the batch size of their training
_SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class _Evaluator:
    """Detector to evaluate, and the function that runs it on a split."""

    name: str
    class_names: Sequence[str]
    size_rule: SizeRule | Canvas
    trained_with: TrainOptions
    evaluate: Callable[[LabelIndex, int, np.ndarray | None], Evaluation]  # arguments: index, batch size, new labels


def main(options: EvalOptions) -> None:
    """Evaluate on one split; write metrics, plots, pictures and an HTML report to the output folder."""
    processes = join_processes(options.device, "env://", 1)
    setup_logging(quiet=not processes.is_main)
    config = load_data_config(options.data)
    split = options.split or ("test" if "test" in config.splits else "valid")
    if config.generate is not None:
        broadcast_from_main(processes, lambda: make_demo(config))
    config.split(split)
    results_file = _results_file(options.save_json)
    as_detector = options.wants_slices() or options.tensorrt or is_onnx(options.weights)
    evaluator = (_detector_evaluator if as_detector else _network_evaluator)(options, processes)
    new_labels = _new_labels(evaluator.class_names, config.classes, config.path)
    label_type = options.label_type or evaluator.trained_with.label_type
    drop_unknown = options.drop_unknown or evaluator.trained_with.drop_unknown
    index = open_index(config, split, label_type, drop_unknown=drop_unknown)
    log.info("Evaluating %s on %s at %s", evaluator.name, processes.device, evaluator.size_rule)
    if processes.is_main:
        index.log_summary(_SPLIT_NAMES[split])

    folder = broadcast_from_main(processes, lambda: _output_folder(options.output))
    evaluation = evaluator.evaluate(index, options.batch or evaluator.trained_with.batch, new_labels)
    if options.verbose:
        log.info(evaluation.metrics.class_table())
    if processes.is_main:
        info = {
            "model": evaluator.name,
            "weights": options.weights or "published COCO weights",
            "data": f"{config.path}, {split}: {len(evaluation.detections):,} images",
            "image size": f"{evaluator.size_rule}{_views(options)}",
        }
        _write(folder, index, evaluation, options, info, results_file)
    cleanup()


def _views(options: EvalOptions) -> str:
    """Suffix of the image size for slices and test-time augmentation."""
    if options.slice:
        return f", in slices of {options.slice_width} x {options.slice_height} px"
    return ", test-time augmentation with six views" if options.tta else ""


def _network_evaluator(options: EvalOptions, processes: Processes) -> _Evaluator:
    """Evaluator of a checkpoint or a model with COCO weights, as used during training."""
    checkpoint = load_checkpoint(Path(options.weights)) if options.weights else None
    trained_with = TrainOptions(batch=_BATCH).over(checkpoint.get("options", {}) if checkpoint else {})
    detector = open_detector(checkpoint, options.model, default=_MODEL)
    size_rule = resolve_size_rule(detector, options.weights, imgsz=options.imgsz, square=options.square_training)

    def run(index: LabelIndex, batch_size: int, new_labels: np.ndarray | None) -> Evaluation:
        batches = EvalBatchSampler(index, size_rule, batch_size, rank=processes.rank, world_size=processes.world_size)
        loader = make_loader(DetectionDataset(index, size_rule), batches, options.workers, processes.device)
        model = detector.model.to_device(processes.device)
        evaluation = evaluate(
            TTADetector(model) if options.tta else model,
            loader,
            index,
            precision=_precision(processes.device, trained_with),
            processes=processes,
            new_labels=new_labels,
        )
        share_faults(processes, loader)
        return evaluation

    return _Evaluator(detector.name, detector.class_names, size_rule, trained_with, run)


def _detector_evaluator(options: EvalOptions, processes: Processes) -> _Evaluator:
    """Evaluator of an ONNX file, or of any detector on slices, through the interface of inference; in fp32."""
    source = "--slice" if options.slice else options.weights
    if options.tta:
        raise UserError(f"--tta does not work with {source}: drop one of them")
    if processes.several:
        raise UserError(f"{source} is evaluated by one process: start eval.py without a launcher")
    detector = load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_training,
        default=_MODEL, tensorrt=options.tensorrt,
    )  # fmt: skip
    checkpoint = load_checkpoint(Path(options.weights)) if options.weights and not is_onnx(options.weights) else {}
    trained_with = TrainOptions(batch=_BATCH).over(checkpoint.get("options", {}))
    info = detector.info
    log.info("%s runs on %s", info.source, info.runs_on)

    def run(index: LabelIndex, batch_size: int, new_labels: np.ndarray | None) -> Evaluation:
        used = detector
        if options.slice:  # batches are made of the slices of one image
            used, batch_size = slice_detector(detector, options, batch=batch_size), 1
        return evaluate_detector(used, index, batch_size=batch_size, workers=options.workers, new_labels=new_labels)

    return _Evaluator(info.name, info.class_names, info.size_rule, trained_with, run)


def _precision(device: torch.device, trained_with: TrainOptions) -> Precision:
    """Precision of the training; fp32 with a warning if the device does not support it."""
    try:
        return pick_precision(device, trained_with.precision, amp=trained_with.amp)
    except UserError as error:
        log.warning("Evaluating in fp32: %s", error)
        return Precision(device)


def _write(
    folder: Path,
    index: LabelIndex,
    evaluation: Evaluation,
    options: EvalOptions,
    info: Mapping[str, str],
    results_file: Path | None,
) -> None:
    """Write all output files, and log the best threshold and the folder."""
    numbers = {}
    if options.voc_ap:
        voc = voc_metrics(index, evaluation.detections, int(options.voc_ap))
        log.info("\n".join(voc.lines() if options.verbose else voc.lines()[:1]))
        numbers["voc"] = voc.as_dict()
    try:
        analysis = write_evaluation(
            folder, index, evaluation.detections, evaluation.metrics,
            title=f"Evaluation of {Path(info['weights']).name}", info=info, numbers=numbers,
        )  # fmt: skip
        write_prediction_pictures(folder, index, evaluation.detections, threshold=analysis.threshold)
        if results_file is not None:
            write_coco_results(results_file, index, evaluation.detections)
            log.info(
                "Wrote COCO results to %s, their ground truth to %s", results_file, ground_truth_file(results_file)
            )
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from None
    log.info("Best score threshold, by mean F1: %.3f", analysis.threshold)
    log.info("Results are in %s; look at %s", folder, folder / REPORT)


def _results_file(requested: str | None) -> Path | None:
    """Path of --save-json; checked before the evaluation, so that a bad path fails at once."""
    if requested is None:
        return None
    path = Path(requested)
    if ground_truth_file(path).exists() and not path.exists():
        raise UserError(f"--save-json {requested} would overwrite {ground_truth_file(path)}: choose another name")
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"--save-json {requested}: {reason}; expected a file name in an existing folder")
    return path


def _output_folder(requested: str | None) -> Path:
    """The folder of --output, or a new numbered one."""

    return given_folder(Path(requested)) if requested else numbered_folder(EVALUATION)


def _new_labels(model_classes: Sequence[str], data_classes: Sequence[str], path: Path) -> np.ndarray | None:
    """(K,) int64: model's label -> data set's label of the same name, -1 for none; None if they are the same."""
    if list(model_classes) == list(data_classes):
        return None
    missing = [name for name in data_classes if name not in model_classes]
    if missing:
        raise UserError(
            f"{path}: CLASSES has {', '.join(missing)}, which the model does not have; "
            f"it was trained on {', '.join(model_classes[1:])}"
        )
    label_of = {name: label for label, name in enumerate(data_classes)}
    return np.array([label_of.get(name, -1) for name in model_classes], np.int64)


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
