"""A detector of a file or a name, ready to use.

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
    """A detector that is ready to use.

    Args:
        weights: a checkpoint, or an ONNX file of export.py; without it a model with published COCO weights.
        model: its name, checked where `weights` knows it; an ONNX file takes none.
        device: cpu, cuda or cuda:N; without it the first GPU, or the CPU where there is none.
        imgsz: shorter side of the image for the network; without it that of the training.
        square: resize to imgsz x imgsz, whatever the aspect ratio.
        default: the model where neither weights nor model are given.
        cuda_graphs: on a GPU, record what is done with batches of one shape, and replay it; not with ONNX files.
        tensorrt: run an ONNX file with TensorRT.

    Raises:
        UserError, ModelError: there is no such file, model or device, or the file holds no detector.
    """
    chosen = pick_device(device)
    if is_onnx(weights):
        if model is not None:
            raise UserError(f"--model {model}: {weights} is a whole detector and knows its model: drop --model")
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
    """As a script's flags say; see load_detector."""
    return load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_img,
        cuda_graphs=options.cuda_graphs, tensorrt=options.tensorrt,
    )  # fmt: skip


def resolve_size_rule(
    opened: OpenedDetector, weights: str | Path | None, *, imgsz: int | None, square: bool
) -> SizeRule:
    """The size rule of the training, unless imgsz or squares are asked for; a guess is told."""
    if imgsz is not None:
        return SizeRule(imgsz, square=square)
    rule = SizeRule(**opened.size_rule)
    if not opened.size_is_known:
        log.warning("%s does not say its training size, which --imgsz would; using %s", weights, rule)
    return replace(rule, square=True) if square else rule
