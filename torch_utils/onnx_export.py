"""Export of a detector to ONNX, and comparison of its detections with those of PyTorch."""

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
from utils.errors import requires_package
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample
from utils.loading.size_rule import Canvas, SizeRule

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
_GRAPH_BYTES = 2**25  # upper bound of the size of a graph without weights
_TIMED_RUNS = 3  # after one warm-up run
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.fx", "torch._dynamo", "torch.__trace")
_DYNAMIC_CELLS = (5, 8)  # height and width of the example, in STRIDE px: different, and no feature map of one cell
_FAILURES = (OnnxExporterError, RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, LookupError)


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference between two detectors."""

    box: float  # px in the image, each coordinate
    score: float
    min_score: float  # boxes with a higher score must have a match
    unmatched: float  # allowed fraction of boxes without a match: rounding can change what NMS drops


EXACT = Tolerance(box=0.05, score=1e-3, min_score=0.0, unmatched=0.0)
HALF = Tolerance(box=4.0, score=0.05, min_score=0.3, unmatched=0.02)
PADDED_UNMATCHED = 0.1  # padded images: scores in the padding are equal but for rounding, which decides their ranking


@dataclass(frozen=True)
class Difference:
    """Result of comparing two detectors on images."""

    images: int
    boxes: int  # boxes with a match
    unmatched: int  # boxes that should have a match and have none
    box: float  # px, largest difference of a coordinate
    score: float  # largest difference of a score

    def within(self, tolerance: Tolerance) -> bool:
        """Return True if no more boxes are unmatched than allowed."""
        return self.unmatched <= tolerance.unmatched * (self.boxes + self.unmatched)

    def __str__(self) -> str:
        return (
            f"{self.boxes} boxes in {self.images} image{'s' if self.images > 1 else ''}, at most {self.box:.3g} px and "
            f"{self.score:.2g} of score apart, {self.unmatched} unmatched"
        )


def to_onnx(
    model: FasterRCNN, size: tuple[int, int] | None, *, batch: int = 1, half: bool = False, simplify: bool = True
) -> "ModelProto":
    """Export `OnnxGraph` of the model, without metadata.

    Args:
        size: height and width of the input; None: dynamic, which requires batch 1.
        half: store weights in half precision.
        simplify: optimize the graph with onnxslim.

    Raises:
        MissingPackageError: onnx, onnxscript or, for simplify, onnxslim is not installed.
        ModelError: the network cannot be exported, or is too large.
    """
    _require_packages(simplify=simplify)
    if size is None and batch != 1:
        raise ModelError(f"a dynamic image size requires batch 1, not {batch}: use a fixed size")
    _check_size(sum(p.numel() for p in model.parameters()) * (2 if half else 4) + _GRAPH_BYTES, half=half)
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
    except _FAILURES as error:
        kind, remedy = (f"{width} x {height} px", "") if size else ("any image size", ": use a fixed size")
        raise ModelError(f"this network cannot be exported to ONNX for {kind} ({_reason(error)}){remedy}") from error
    return _simplified(proto) if simplify else proto


def serialize_onnx(proto: "ModelProto", metadata: OnnxMetadata) -> bytes:
    """Serialize a graph with its metadata to the bytes of an ONNX file.

    Raises:
        ModelError: the file would exceed 2 GiB, the limit of ONNX.
    """
    import onnx

    onnx.helper.set_model_props(proto, metadata.to_props())
    _check_size(proto.ByteSize(), half=metadata.half)
    return proto.SerializeToString()


def _check_size(count: int, *, half: bool) -> None:
    """Raise a ModelError for files above 2 GiB, where protobuf fails in various ways."""
    if count > MAX_ONNX_BYTES:
        remedy = "" if half else ": --half halves it"
        raise ModelError(f"this network is too large for an ONNX file, which has at most 2 GiB{remedy}")


def compare_detections(
    one: TorchDetector, other: OnnxDetector, images: Sequence[np.ndarray], tolerance: Tolerance, *, padded: bool
) -> Difference:
    """Compare the detections of both on the same pixels of every image.

    `padded` images are padded as in inference; otherwise they are stretched to fill the input. A box needs no match if
    rounding decides whether it is returned: its score is near the score threshold of the model, or near the lowest
    score of an image with the maximum number of detections.
    """
    heads = one.model.roi_heads
    boxes, unmatched, box, score = 0, 0, 0.0, 0.0
    for image in images:
        pair = [detect() for detect in _at_same_pixels(one, other, image, padded=padded)]
        is_full = max(map(len, pair)) >= heads.detections_per_img
        lowest = min((side.scores.min() for side in pair if len(side)), default=0.0) if is_full else heads.score_thresh
        min_score = max(tolerance.min_score, float(lowest)) + tolerance.score
        matches, unmatched_scores = match_detections(*pair, tolerance)
        boxes, unmatched = boxes + len(matches), unmatched + int((np.array(unmatched_scores) >= min_score).sum())
        for i, k in matches:
            box = max(box, float(np.abs(pair[0].boxes[i] - pair[1].boxes[k]).max()))
            score = max(score, float(abs(pair[0].scores[i] - pair[1].scores[k])))
    return Difference(len(images), boxes, unmatched, box, score)


def time_per_image(one: TorchDetector, other: OnnxDetector, image: np.ndarray) -> tuple[float, float]:
    """Measure the median time of both for one image in s."""
    return tuple(_median(detect, one.device) for detect in _at_same_pixels(one, other, image, padded=True))


def _at_same_pixels(
    one: TorchDetector, other: OnnxDetector, image: np.ndarray, *, padded: bool
) -> tuple[Callable[[], Detections], Callable[[], Detections]]:
    sample = other.prepare(image)
    batch = _to_batch(sample, other.info.size_rule)
    if not padded:
        height, width = batch.images.shape[1:3]
        batch = _to_batch(sample._replace(image=cv2.resize(image, (width, height))), other.info.size_rule)
    return lambda: one.detect_batch(batch)[0], lambda: other.detect_batch(batch)[0]


def _to_batch(sample: Sample, rule: SizeRule | Canvas) -> Batch:
    batch = collate([sample])
    return pad_to_canvas(batch, rule) if isinstance(rule, Canvas) else batch


def match_detections(
    one: Detections, other: Detections, tolerance: Tolerance
) -> tuple[list[tuple[int, int]], list[float]]:
    """Match boxes of one label within the tolerance; return index pairs, nearest first, and the unmatched scores."""
    distance = np.abs(one.boxes[:, None] - other.boxes[None]).max(2)
    near = (distance <= tolerance.box) & (one.labels[:, None] == other.labels[None])
    near &= np.abs(one.scores[:, None] - other.scores[None]) <= tolerance.score
    pairs, used = [], (set(), set())
    for i, k in sorted(np.argwhere(near).tolist(), key=lambda pair: distance[pair[0], pair[1]]):
        if i not in used[0] and k not in used[1]:
            pairs.append((i, k))
            used[0].add(i)
            used[1].add(k)
    unmatched = [
        float(score)
        for detections, matched in zip((one, other), used, strict=True)
        for i, score in enumerate(detections.scores)
        if i not in matched
    ]
    return pairs, unmatched


def _median(detect: Callable[[], Detections], device: torch.device) -> float:
    times = []
    for _ in range(1 + _TIMED_RUNS):
        started = time.perf_counter()
        detect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _require_packages(*, simplify: bool) -> None:
    """Fail before the export, which takes minutes, if one of its packages is missing."""
    with requires_package("onnx", "ONNX export"):
        import onnx  # noqa: F401
    with requires_package("onnxscript", "ONNX export"):
        import onnxscript  # noqa: F401
    if simplify:
        with requires_package("onnxslim", "--simplify", remedy="give --no-simplify"):
            import onnxslim  # noqa: F401


def _simplified(proto: "ModelProto") -> "ModelProto":
    import onnxslim

    with _quiet():
        return onnxslim.slim(proto)


def count_operators(proto: "ModelProto") -> Counter[str]:
    """Count the nodes of the graph by operator."""
    return Counter(node.op_type for node in proto.graph.node)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and logs of the exporters; errors are raised."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.ExitStack() as undo:
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            undo.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        yield


def _reason(error: Exception) -> str:
    """Return the first line of the innermost error; torch.onnx wraps several around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
