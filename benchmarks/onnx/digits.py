"""How far maps and the RPN's numbers are from float64's, in PyTorch and in onnxruntime: whether a file loses digits.

python -m benchmarks.onnx.digits fasterrcnn_darknet fasterrcnn_resnet101_fpn

Weights are random (benchmarks/common/lively.py). A number is the largest difference in a tensor, as a share of the
largest value in it, and of all tensors the worst.
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
    """(1, 3, H, W) float32, the picture as the backbone sees it."""
    image = torch.from_numpy(cv2.resize(picture(), (CANVAS.width, CANVAS.height)))[None]
    return (image.float() * model.pixel_scale + model.pixel_shift).permute(0, 3, 1, 2).contiguous()


def largest(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """See the module."""
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, exact, strict=True))


@torch.no_grad()
def row_of(name: str) -> str:
    """The model's line of the table."""
    model = lively(name)
    front, pixels = Front(model).eval(), pixels_of(model)
    exact = copy.deepcopy(front).double()(pixels.double())
    program = torch.onnx.export(front, (pixels,), dynamo=True, opset_version=OPSET, verbose=False)
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    with torch.backends.mkldnn.flags(enabled=False):
        plain = front(pixels)
    ways = front(pixels), plain, tuple(map(torch.from_numpy, found))
    return f"| {name} | {' | '.join(f'{largest(way, exact):.1e}' for way in ways)} |"


def main() -> None:
    """The table, row by row."""
    parser = argparse.ArgumentParser(description="Rounding in PyTorch and in onnxruntime, against float64.")
    parser.add_argument("names", nargs="*", default=NAMES, help="models")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}\n")
    print("| model | PyTorch | PyTorch without oneDNN | onnxruntime |\n|---|---|---|---|")
    for name in options.names:
        print(row_of(name), flush=True)


if __name__ == "__main__":
    main()
