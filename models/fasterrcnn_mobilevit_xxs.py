"""Faster R-CNN on the last map of MobileViT-XXS.

Paper: Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178
Weights: ImageNet, mobilevit_xxs.pt of Apple's CVNets (Apple sample code license).
Cost: 19.1 M parameters, 22.7 GFLOPs, strides 32.
"""

from typing import Any

from models.backbones.mobilevit import load_published, mobilevit_xxs
from models.building.build_options import BuildOptions, start
from models.building.builder import BackboneSpec, build_fasterrcnn
from models.rcnn.detector import FasterRCNN

SPEC = BackboneSpec(out_channels=320, strides=(32,))


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn; `pretrained` loads ImageNet weights into the backbone."""
    backbone = mobilevit_xxs()
    if pretrained:
        load_published(backbone)
    return build_fasterrcnn(backbone, SPEC, num_classes, options or start(pretrained), **detector_options)
