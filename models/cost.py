"""Count a detector's parameters, multiplications and strides, without memory for weights or images.

python -m models.cost fasterrcnn_resnet18        the line for the header of its file
python -m models.cost timm/convnext_atto.d2_in1k
"""

import sys
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.building.build_options import PUBLISHED
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from models.rcnn.roi_pool import SIDE

CLASSES = 21  # Pascal VOC's, with the background
IMAGE = 640  # px, square
PROPOSALS = 1000


@dataclass(frozen=True)
class Cost:
    """parameters: number of them; flops: multiplications with an addition; strides: px, of all maps with anchors."""

    parameters: int
    flops: int
    strides: tuple[int, ...]

    def __str__(self) -> str:
        strides = " ".join(map(str, self.strides))
        return f"{self.parameters / 1e6:.1f} M parameters, {self.flops / 1e9:.1f} GFLOPs, strides {strides}."


@torch.no_grad()
def cost_of(name: str) -> Cost:
    """Cost of a model at 21 classes, one image of 640 x 640 px and 1000 proposals."""
    with torch.device("meta"):
        model = create_model[name](CLASSES, pretrained=False, options=PUBLISHED).eval()  # frozen norms: no parameters
        image = torch.empty(1, 3, IMAGE, IMAGE)
        regions = torch.empty(PROPOSALS, model.backbone.out_channels, SIDE, SIDE)
        with FlopCounterMode(display=False) as counter:
            maps = model.backbone(image)
            maps = [maps] if isinstance(maps, torch.Tensor) else list(maps.values())
            model.rpn.head(maps)
            features = model.roi_heads.box_head(regions)
            for layer in model.roi_heads.box_predictor.children():  # its forward enters autocast, which meta has not
                layer(features)
    strides = tuple(round(IMAGE / m.shape[-1]) for m in maps)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2, strides)


def main(names: list[str]) -> int:
    """Print a line for each; exit code 2 for a name that is none, or for no name."""
    if not names or names[0].startswith("-"):
        print("usage: python -m models.cost MODEL ...: a model's parameters and multiplications", file=sys.stderr)
        return 2
    try:
        for name in names:
            print(f"{name}: Cost: {cost_of(name)}")
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
