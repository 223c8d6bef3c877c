"""Compare the rounding errors of PyTorch and onnxruntime in feature maps and RPN outputs, against float64.

python -m benchmarks.onnx.digits fasterrcnn_darknet fasterrcnn_resnet101_fpn

Weights are random (benchmarks/common/lively.py). A number is the largest difference in a tensor divided by its
largest value, for the worst tensor.
"""

import argparse
import copy

import cv2
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks.common.lively import CANVAS, lively, picture
from models.rcnn.detector import FasterRCNN
from torch_utils.onnx_export import OPSET

NAMES = ("fasterrcnn_darknet", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet101", "fasterrcnn_resnet152_fpn")


class Front(nn.Module):
    """The network up to the proposals: (1, 3, H, W) to maps, objectness and deltas."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.rpn.head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        maps = self.backbone(pixels)
        maps = [maps] if isinstance(maps, Tensor) else list(maps.values())
        logits, deltas = self.head(maps)
        return *maps, *logits, *deltas


def pixels_of(model: FasterRCNN) -> Tensor:
    """(1, 3, H, W) float32, the photograph as input of the backbone."""
    image = torch.from_numpy(cv2.resize(picture(), (CANVAS.width, CANVAS.height)))[None]
    return (image.float() * model.pixel_scale + model.pixel_shift).permute(0, 3, 1, 2).contiguous()


def largest_error(outputs: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Largest relative difference, see the module."""
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(outputs, exact, strict=True))


@torch.no_grad()
def row_of(name: str) -> str:
    """Measure a model and format its row."""
    model = lively(name)
    front, pixels = Front(model).eval(), pixels_of(model)
    exact = copy.deepcopy(front).double()(pixels.double())
    program = torch.onnx.export(front, (pixels,), dynamo=True, opset_version=OPSET, verbose=False)
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    with torch.backends.mkldnn.flags(enabled=False):
        plain = front(pixels)
    ways = front(pixels), plain, tuple(map(torch.from_numpy, outputs))
    return f"| {name} | {' | '.join(f'{largest_error(way, exact):.1e}' for way in ways)} |"


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description="Rounding in PyTorch and in onnxruntime, against float64.")
    parser.add_argument("names", nargs="*", default=NAMES, help="models")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}\n")
    print("| model | PyTorch | PyTorch without oneDNN | onnxruntime |\n|---|---|---|---|")
    for name in options.names:
        print(row_of(name), flush=True)


if __name__ == "__main__":
    main()
