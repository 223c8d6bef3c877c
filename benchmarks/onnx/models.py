"""Export every model to ONNX and compare it with PyTorch, box by box, on two images, as a Markdown table.

python -m benchmarks.onnx.models                            all of the registry, about an hour on one core
python -m benchmarks.onnx.models timm/resnet18 --dynamic

Weights are random (benchmarks/common/lively.py), in float32, and detections are those of inference.py. "unmatched"
counts boxes without a match of the same class within 0.05 px and 0.001 of score.
"""

import argparse
import gc
import time
from pathlib import Path

import onnxruntime
import torch

from benchmarks.common.lively import CANVAS, CLASSES, lively, picture, picture_and_rotated
from models.create_fasterrcnn_model import create_model
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from torch_utils.onnx_export import (
    EXACT,
    HALF,
    Difference,
    compare_detections,
    count_operators,
    serialize_onnx,
    time_per_image,
    to_onnx,
)
from utils.detect.onnx_detector import OnnxDetector
from utils.detect.onnx_file import OnnxMetadata
from utils.detect.torch_detector import TorchDetector
from utils.loading.size_rule import Canvas, SizeRule

LIBRARIES = (
    "timm/resnet18", "timm/convnext_atto", "timm/efficientvit_b0", "torchvision/resnet18", "torchvision/swin_t",
)  # fmt: skip
TOO_LARGE = ("fasterrcnn_dinov3_vith16plus",)  # more than 2 GiB of weights
_CPU = torch.device("cpu")


def metadata(name: str, rule: Canvas | SizeRule, *, batch: int = 1, half: bool = False) -> OnnxMetadata:
    """Metadata stored in the ONNX file."""
    return OnnxMetadata(name, CLASSES, rule, batch, half, None, "random")


class Pair:
    """A model in PyTorch and its ONNX file.

    Raises:
        ModelError: it cannot be exported.
    """

    def __init__(
        self, model: FasterRCNN, name: str, rule: Canvas | SizeRule, *, batch: int = 1, half: bool = False
    ) -> None:
        self.half = half
        size = (rule.height, rule.width) if isinstance(rule, Canvas) else None
        proto = to_onnx(model, size, batch=batch, half=half)
        self.nodes = count_operators(proto).total()
        self.content = serialize_onnx(proto, metadata(name, rule, batch=batch, half=half))
        self.onnx = OnnxDetector(Path(name), _CPU, content=self.content)
        self.torch = TorchDetector(model, self.onnx.info, _CPU)

    def difference(self) -> Difference:
        """Difference on the photograph and on its rotated copy."""
        tolerance = HALF if self.half else EXACT
        return compare_detections(self.torch, self.onnx, picture_and_rotated(), tolerance, padded=False)


def row_of(name: str, rule: Canvas | SizeRule) -> str:
    """Measure a model and format its row."""
    try:
        pair = Pair(lively(name), name, rule)
    except ModelError as error:
        return f"| {name} | {error} |"
    difference = pair.difference()
    torch_seconds, onnx_seconds = time_per_image(pair.torch, pair.onnx, picture())
    return (
        f"| {name} | {pair.nodes} | {len(pair.content) / 1e6:.1f} | {difference.boxes} | {difference.unmatched} "
        f"| {difference.box:.2g} | {difference.score:.1g} | {onnx_seconds / torch_seconds:.2f} |"
    )


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description="ONNX files against PyTorch, with random weights.")
    parser.add_argument("names", nargs="*", help="models; without any, all of the registry and a few of its libraries")
    parser.add_argument("--dynamic", action="store_true", help="a graph of any image size")
    options = parser.parse_args()
    rule = SizeRule(CANVAS.height) if options.dynamic else CANVAS
    size = f"of {rule}" if options.dynamic else f"in {CANVAS.width} x {CANVAS.height} px"
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {torch.get_num_threads()} thread(s)"
    print(
        f"{versions}, images {size}, {time.strftime('%Y-%m-%d')}; time is that of the file, as a share of PyTorch's\n"
    )
    print(
        "| model | nodes | MB | boxes | unmatched | px apart | score apart | time |\n|---|---|---|---|---|---|---|---|"
    )
    for name in options.names or sorted({*create_model, *LIBRARIES}):
        print(row_of(name, rule), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
