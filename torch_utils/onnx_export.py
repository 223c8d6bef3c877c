"""From a detector to an ONNX file, and the proof that both find the same."""

import contextlib
import copy
import logging
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.onnx.errors import OnnxExporterError

from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.onnx_graph import INPUTS, OUTPUTS, STRIDE, OnnxGraph
from utils.detect.detections import Detections
from utils.detect.onnx_detector import OnnxDetector, pad_to_canvas
from utils.detect.onnx_file import MAX_ONNX_BYTES, OnnxMetadata
from utils.detect.torch_detector import TorchDetector
from utils.errors import UserError
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample
from utils.loading.size_rule import Canvas, SizeRule

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
_NODES = 2**25  # bytes, more than a graph has besides its weights
_TIMED = 3  # runs, after one to warm up
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.fx", "torch._dynamo", "torch.__trace")
_DYNAMIC_CELLS = (5, 8)  # of STRIDE px: an example of a height and a width that are not the same, no map of one cell
_LOST = (OnnxExporterError, RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, LookupError)


@dataclass(frozen=True)
class Tolerance:
    """How far two detectors may be apart."""

    box: float  # px of the image, each corner
    score: float
    least: float  # score from which boxes must have their partner
    alone: float  # share of the boxes that may have none: a little difference can decide what an NMS drops


EXACT = Tolerance(box=0.05, score=1e-3, least=0.0, alone=0.0)
HALF = Tolerance(box=4.0, score=0.05, least=0.3, alone=0.02)
PADDED_UNMATCHED = 0.1  # share, of images with padding: its cells score alike but for the last bit, and that bit chooses


@dataclass(frozen=True)
class Difference:
    """What a comparison of two detectors on images found."""

    images: int
    boxes: int  # that have a partner
    alone: int  # that have none, and should
    box: float  # px, the most that a corner is apart from its partner's
    score: float  # the most

    def within(self, tolerance: Tolerance) -> bool:
        """Whether no more boxes are alone than may be."""
        return self.alone <= tolerance.alone * (self.boxes + self.alone)

    def __str__(self) -> str:
        return (
            f"{self.boxes} boxes in {self.images} image{'s' if self.images > 1 else ''}, at most {self.box:.3g} px and "
            f"{self.score:.2g} of score apart, {self.alone} without a partner"
        )


def to_onnx(
    model: FasterRCNN, size: tuple[int, int] | None, *, batch: int = 1, half: bool = False, simplify: bool = True
) -> "ModelProto":
    """The graph of `OnnxGraph`, without metadata.

    Args:
        size: height and width of its input; None: free, and then batch is 1.

    Raises:
        ModelError: the network has something that cannot be exported, or not so, or is too large: it says what.
    """
    if size is None and batch != 1:
        raise ModelError(f"a graph of any image size takes one image a call, not {batch}: give it a fixed size")
    _check_size(sum(p.numel() for p in model.parameters()) * (2 if half else 4) + _NODES, half=half)
    graph = OnnxGraph(model.cpu().eval(), size)
    if half:
        graph = copy.deepcopy(graph)
        graph.halve()
    height, width = size or (cells * STRIDE for cells in _DYNAMIC_CELLS)
    example = torch.zeros(batch, height, width, 3, dtype=torch.uint8), torch.tensor([[height, width]] * batch)
    shapes = None
    if size is None:
        dims = {axis: STRIDE * torch.export.Dim(f"{name}_cells", min=3) for axis, name in ((1, "height"), (2, "width"))}
        shapes = {"images": dims, "sizes": None}
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                graph, example, None, input_names=list(INPUTS), output_names=list(OUTPUTS), opset_version=OPSET,
                dynamo=True, dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
        proto = program.model_proto
    except _LOST as error:
        kind, remedy = (f"{width} x {height} px", "") if size else ("any image size", ": give it a fixed size")
        raise ModelError(f"this network cannot be exported to ONNX for {kind} ({_reason(error)}){remedy}") from error
    return _simplified(proto) if simplify else proto


def serialize_onnx(proto: "ModelProto", metadata: OnnxMetadata) -> bytes:
    """The file.

    Raises:
        ModelError: it would be larger than an ONNX file can be.
    """
    import onnx

    onnx.helper.set_model_props(proto, metadata.to_props())
    _check_size(proto.ByteSize(), half=metadata.half)
    return proto.SerializeToString()


def _check_size(count: int, *, half: bool) -> None:
    """ModelError for more bytes than a file can have; protobuf itself fails at about so many, in several ways."""
    if count > MAX_ONNX_BYTES:
        remedy = "" if half else ": --half halves it"
        raise ModelError(f"this network is too large for an ONNX file, which has at most 2 GiB{remedy}")


def compare_detections(
    one: TorchDetector, other: OnnxDetector, images: Sequence[np.ndarray], tolerance: Tolerance, *, padded: bool
) -> Difference:
    """Detect in every image with both, at the same pixels.

    `padded` images are seen as in use; the others are resize_height until they fill their block. A box needs no partner
    where its score is so low that it is chance whether it is among the detections: near the model's threshold, or
    near the last one's where the image has as many as there may be.
    """
    heads = one.model.roi_heads
    boxes, alone, box, score = 0, 0, 0.0, 0.0
    for image in images:
        pair = [detect() for detect in _at_same_pixels(one, other, image, padded=padded)]
        full = max(len(found) for found in pair) >= heads.detections_per_img
        last = min((found.scores.min() for found in pair if len(found)), default=0.0) if full else heads.score_thresh
        least = max(tolerance.least, float(last)) + tolerance.score
        paired, lonely = match_boxes(*pair, tolerance)
        boxes, alone = boxes + len(paired), alone + int((np.array(lonely) >= least).sum())
        for i, k in paired:
            box = max(box, float(np.abs(pair[0].boxes[i] - pair[1].boxes[k]).max()))
            score = max(score, float(abs(pair[0].scores[i] - pair[1].scores[k])))
    return Difference(len(images), boxes, alone, box, score)


def time_per_image(one: TorchDetector, other: OnnxDetector, image: np.ndarray) -> tuple[float, float]:
    """Medians of what both take for one image of the batch."""
    return tuple(_median(detect, one.device) for detect in _at_same_pixels(one, other, image, padded=True))


def _at_same_pixels(
    one: TorchDetector, other: OnnxDetector, image: np.ndarray, *, padded: bool
) -> tuple[Callable[[], Detections], Callable[[], Detections]]:
    sample = other.prepare(image)
    batch = _block(sample, other.info.size_rule)
    if not padded:
        height, width = batch.images.shape[1:3]
        batch = _block(sample._replace(image=cv2.resize(image, (width, height))), other.info.size_rule)
    return lambda: one.detect_batch(batch)[0], lambda: other.detect_batch(batch)[0]


def _block(sample: Sample, rule: SizeRule | Canvas) -> Batch:
    batch = collate([sample])
    return pad_to_canvas(batch, rule) if isinstance(rule, Canvas) else batch


def match_boxes(one: Detections, other: Detections, tolerance: Tolerance) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs of the same label that are within the tolerance, nearest first; and the scores of boxes without one."""
    apart = np.abs(one.boxes[:, None] - other.boxes[None]).max(2)
    near = (apart <= tolerance.box) & (one.labels[:, None] == other.labels[None])
    near &= np.abs(one.scores[:, None] - other.scores[None]) <= tolerance.score
    pairs, used = [], (set(), set())
    for i, k in sorted(np.argwhere(near).tolist(), key=lambda pair: apart[pair[0], pair[1]]):
        if i not in used[0] and k not in used[1]:
            pairs.append((i, k))
            used[0].add(i)
            used[1].add(k)
    lonely = [
        float(score)
        for found, taken in zip((one, other), used, strict=True)
        for place, score in enumerate(found.scores)
        if place not in taken
    ]
    return pairs, lonely


def _median(detect: Callable[[], Detections], device: torch.device) -> float:
    times = []
    for _ in range(1 + _TIMED):
        started = time.perf_counter()
        detect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _simplified(proto: "ModelProto") -> "ModelProto":
    try:
        import onnxslim
    except ModuleNotFoundError:
        raise UserError("--simplify needs the package onnxslim: pip install onnxslim, or give --no-simplify") from None
    with _quiet():
        return onnxslim.slim(proto)


def count_operators(proto: "ModelProto") -> Counter[str]:
    """How many nodes of each kind the graph has."""
    return Counter(node.op_type for node in proto.graph.node)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell a user about their own insides; errors are raised, not logged."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.ExitStack() as undo:
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            undo.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        yield


def _reason(error: Exception) -> str:
    """The innermost error's first line, of the many that torch.onnx wraps around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
