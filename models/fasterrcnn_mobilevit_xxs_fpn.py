"""Faster R-CNN on MobileViT-XXS with a feature pyramid.

Paper: Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178, and Lin et al. 2017, https://arxiv.org/abs/1612.03144
Weights: ImageNet, mobilevit_xxs.pt of Apple's CVNets (Apple sample code license).
Cost: 17.9 M parameters, 59.7 GFLOPs, strides 4 8 16 32 64.
"""

from typing import Any

from models.backbones.fpn import pyramid_spec
from models.backbones.mobilevit import load_published, mobilevit_xxs
from models.building.build_options import BuildOptions, start
from models.building.builder import build_fasterrcnn, with_fpn
from models.rcnn.detector import FasterRCNN

MAPS = {"2": 24, "3": 48, "4": 64, "5": 80}  # the wide convolution behind them serves the classifier
SPEC = pyramid_spec((("0", "1"), *((stage,) for stage in MAPS)))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    net = mobilevit_xxs()
    if pretrained:
        load_published(net)
    return build_fasterrcnn(with_fpn(net, MAPS), SPEC, num_classes, options or start(pretrained), **detector_options)
