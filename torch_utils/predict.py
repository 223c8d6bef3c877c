"""Loading of detectors from checkpoints, ONNX files or model names, for inference.

from torch_utils.predict import load_detector

detector = load_detector("outputs/training/res_1/best_model.pth")
detections = detector("photo.jpg", threshold=0.5)  # boxes, scores and labels, see utils/detect/detections.py
"""

import logging
from dataclasses import replace
from pathlib import Path

from models.create_fasterrcnn_model import DEFAULT_COCO_MODEL, OpenedDetector, open_detector
from models.rcnn.cuda_graphs import GraphedDetector
from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import pick_device
from utils.cli.options import UseOptions
from utils.detect.detector import Detector, DetectorInfo
from utils.detect.onnx_detector import OnnxDetector
from utils.detect.onnx_file import is_onnx
from utils.detect.torch_detector import TorchDetector
from utils.errors import UserError
from utils.loading.size_rule import SizeRule

log = logging.getLogger(__name__)


def load_detector(
    weights: str | Path | None = None,
    model: str | None = None,
    *,
    device: str | None = None,
    imgsz: int | None = None,
    square: bool = False,
    default: str = DEFAULT_COCO_MODEL,
    cuda_graphs: bool = True,
    tensorrt: bool = False,
) -> Detector:
    """Load a detector, ready for inference.

    Args:
        weights: a checkpoint, or an ONNX file of export.py; default a model with published COCO weights.
        model: model name; must match the one stored in a checkpoint; None for an ONNX file.
        device: cpu, cuda or cuda:N; default the first GPU, or the CPU without one.
        imgsz: shorter side of the network input in px; default that of training.
        square: resize to imgsz x imgsz, ignoring the aspect ratio.
        default: model used without weights and model.
        cuda_graphs: on a GPU, capture a CUDA graph for each batch shape; ignored for ONNX files.
        tensorrt: run an ONNX file in TensorRT.

    Raises:
        UserError, ModelError: the file, model or device does not exist, or the file contains no detector.
    """
    chosen = pick_device(device)
    if is_onnx(weights):
        if model is not None:
            raise UserError(f"--model {model}: {weights} contains its model: drop --model")
        detector = OnnxDetector(Path(weights), chosen, require_device=device is not None, tensorrt=tensorrt)
        detector.set_input_size(imgsz=imgsz, square=square)
        return detector
    if tensorrt:
        raise UserError(f"--tensorrt is for .onnx files, not for {weights or 'a COCO model'}: export.py makes one")
    opened = open_detector(load_checkpoint(Path(weights)) if weights else None, model, default=default)
    rule = resolve_size_rule(opened, weights, imgsz=imgsz, square=square)
    info = DetectorInfo(
        name=opened.name,
        class_names=opened.class_names,
        size_rule=rule,
        device=str(chosen),
        source=str(weights or "its published COCO weights"),
        best_threshold=opened.best_threshold,
        class_thresholds=opened.class_thresholds,
    )
    model = opened.model.to_device(chosen)
    graphs = cuda_graphs and chosen.type == "cuda" and not model.use_torchvision_ops
    return TorchDetector(model, info, chosen, detect=GraphedDetector(model) if graphs else None)


def detector_from_options(options: UseOptions) -> Detector:
    """Load the detector that a script's flags specify; see load_detector."""
    return load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_img,
        cuda_graphs=options.cuda_graphs, tensorrt=options.tensorrt,
    )  # fmt: skip


def resolve_size_rule(
    opened: OpenedDetector, weights: str | Path | None, *, imgsz: int | None, square: bool
) -> SizeRule:
    """Return the size rule of training, overridden by imgsz and square; log a warning if it is a guess."""
    if imgsz is not None:
        return SizeRule(imgsz, square=square)
    rule = SizeRule(**opened.size_rule)
    if not opened.size_is_known:
        log.warning("%s does not store its training size: using %s; set it with --imgsz", weights, rule)
    return replace(rule, square=True) if square else rule
