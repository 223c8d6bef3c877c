"""Export a detector to an ONNX file and verify on images that its detections equal those of PyTorch.

python export.py --weights outputs/training/smoke_training/best_model.pth --out smoke.onnx
"""

from utils.cli.options import ExportOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(ExportOptions, "Export a detector to an ONNX file.")

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.create_fasterrcnn_model import OpenedDetector, open_detector
from models.rcnn.errors import ModelError
from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import pick_device
from torch_utils.onnx_export import (
    EXACT,
    HALF,
    PADDED_UNMATCHED,
    compare_detections,
    count_operators,
    serialize_onnx,
    time_per_image,
    to_onnx,
)
from utils.detect.onnx_detector import CUDA_REMEDY, OnnxDetector
from utils.detect.onnx_file import SUFFIX, OnnxMetadata, is_onnx
from utils.detect.torch_detector import TorchDetector
from utils.errors import DataError, UserError, requires_package
from utils.files import write_atomically
from utils.images.image_files import list_images, read_image
from utils.labels.data_config import load_data_config
from utils.loading.size_rule import STRIDE, Canvas, SizeRule
from utils.logs import setup_logging
from utils.version import VERSION

log = logging.getLogger("export")

_FOLDER = Path("weights")  # default folder of --out
_EXAMPLE = Path(__file__).parent / "example_test_data" / "image_1.jpg"
_NUM_IMAGES = 4  # images of the data set used for verification


def main(options: ExportOptions) -> None:
    """Export, verify, and only then write the file."""
    setup_logging()
    path = _output_path(options.out)
    with requires_package("onnxruntime", "the verification of the exported file", remedy=CUDA_REMEDY):
        import onnxruntime  # noqa: F401 - before the export, which takes minutes
    device = pick_device(options.device)
    checkpoint = load_checkpoint(Path(options.weights)) if options.weights else None
    opened = open_detector(checkpoint, options.model)
    names = opened.class_names
    config = load_data_config(options.data) if options.data else None
    if config is not None and len(config.classes) != len(names):
        raise UserError(
            f"{config.path}: CLASSES has {len(config.classes)} entries, the model {len(names)}: drop --data"
        )
    folders = _folders(checkpoint) if config is None else [split.images for split in config.splits.values()]
    images = list(_images(options.check_images, folders))

    rule = _input_size(options, opened)
    log.info("Exporting %s for %s", opened.name, rule)
    size = (rule.height, rule.width) if isinstance(rule, Canvas) else None
    proto = to_onnx(opened.model, size, batch=options.batch, half=options.half, simplify=options.simplify)
    metadata = OnnxMetadata(
        opened.name, tuple(config.classes if config else names), rule, options.batch, options.half,
        opened.best_threshold, VERSION, _class_thresholds(opened, config.classes if config else names),
    )  # fmt: skip
    content = serialize_onnx(proto, metadata)
    _verify(path, content, opened, images, device, half=options.half, require_device=options.device is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))
    nodes = count_operators(proto)
    log.info(
        "%s: %.1f MB, %d nodes of %d kinds; pass it as --weights to inference.py, inference_video.py and eval.py",
        path, len(content) / 1e6, nodes.total(), len(nodes),
    )  # fmt: skip


def _output_path(out: str) -> Path:
    """Validate --out before the export, which takes minutes."""
    path = Path(out)
    if not is_onnx(path):
        raise UserError(f"--out {out}: expected a file name that ends in {SUFFIX}")
    path = _FOLDER / path if path.name == out else path
    if path.is_dir() or not (path.parent.is_dir() or path.parent == _FOLDER):
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"--out {out}: {reason}; expected a file name in a folder that exists")
    return path


def _input_size(options: ExportOptions, opened: OpenedDetector) -> SizeRule | Canvas:
    """Return the fixed input size of the graph, or with --dynamic the size rule of training."""
    rule = SizeRule(**opened.size_rule)
    if options.dynamic:
        if {"width", "height"} & options.given:
            raise UserError("--dynamic accepts images of any size: drop it, or drop --width and --height")
        return rule
    height = options.height or options.width or rule.size
    width = options.width or options.height or rule.size
    if height % STRIDE or width % STRIDE:
        if {"width", "height"} & options.given:
            raise UserError(f"--width {width} --height {height}: expected multiples of {STRIDE}")
        height = width = -(-rule.size // STRIDE) * STRIDE
    if not opened.size_is_known and not {"width", "height"} & options.given:
        log.warning("%s does not store its training size: set it with --width and --height", options.weights)
    return Canvas(height, width, square=rule.square and height == width)


def _class_thresholds(opened: OpenedDetector, names: Sequence[str]) -> Mapping[str, float | None] | None:
    """Return the checkpoint's class thresholds under new class names."""
    if opened.class_thresholds is None:
        return None
    renamed = dict(zip(opened.class_names, names, strict=True))
    return {renamed[name]: value for name, value in opened.class_thresholds.items() if name in renamed}


def _folders(checkpoint: Any) -> list[Path]:
    """Return the image folders of the checkpoint's data set, if stored."""
    data = checkpoint["data"] if checkpoint else {}
    keys = ("VALID_DIR_IMAGES", "TEST_DIR_IMAGES", "TRAIN_DIR_IMAGES")
    return [Path(data[key]) for key in keys if isinstance(data.get(key), str)]


def _images(requested: Sequence[str] | None, folders: Sequence[Path]) -> Iterator[np.ndarray]:
    """Read the images of --check; by default the example image and the first images of the first existing folder."""
    if requested is not None:
        yield from (read_image(Path(name)) for name in requested)
        return
    yield read_image(_EXAMPLE)
    existing = next((folder for folder in folders if os.path.isdir(folder)), None)  # Path.is_dir may raise on any text
    for path in list_images(existing)[:_NUM_IMAGES] if existing else ():
        try:
            yield read_image(path)
        except DataError as error:  # noqa: PERF203 - a handful
            log.warning("Skipped in verification: %s", error)


def _verify(
    path: Path, content: bytes, opened: OpenedDetector, images: Sequence[np.ndarray], device: Any,
    *, half: bool, require_device: bool,
) -> None:  # fmt: skip
    """Raise a UserError unless onnxruntime and PyTorch agree on the images."""
    other = OnnxDetector(path, device, content=content, require_device=require_device)
    one = TorchDetector(opened.model, other.info, device)
    exact = HALF if half else EXACT
    for tolerance, padded, condition in (
        (exact, False, "images that fill the input"),
        (replace(exact, unmatched=PADDED_UNMATCHED), True, "padded images"),
    ):
        difference = compare_detections(one, other, images, tolerance, padded=padded)
        if not difference.within(tolerance):
            raise UserError(
                f"{path} was not written: its detections differ from PyTorch's; {condition}: {difference}; allowed are "
                f"{tolerance.box:g} px and {tolerance.score:g}{': export without --half' if half else ''}"
            )
        log.info("Verified against PyTorch, %s: %s", condition, difference)
    if not difference.boxes:
        log.warning("No detections in the images, so little was verified: give images with objects by --check")
    torch_seconds, onnx_seconds = time_per_image(one, other, images[0])
    log.info(
        "%.3f s an image on %s, %.2f of PyTorch's %.3f s",
        onnx_seconds, other.info.runs_on, onnx_seconds / torch_seconds, torch_seconds,
    )  # fmt: skip


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
