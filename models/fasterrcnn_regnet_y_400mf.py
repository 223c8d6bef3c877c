"""Faster R-CNN on the last map of RegNetY-400MF.

Paper: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678
Weights: ImageNet, torchvision RegNet_Y_400MF_Weights.IMAGENET1K_V2 (BSD-3-Clause).
Cost: 28.9 M parameters, 27.2 GFLOPs, strides 32.
"""

from torch import nn
from torchvision.models import RegNet_Y_400MF_Weights

from models.backbones.torchvision_nets import classification_net, regnet_y_400mf, without_classifier
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

STAGES = (("0",), *((f"1.block{i}",) for i in range(1, 5)))  # stem, and the blocks of the trunk
SPEC = BackboneSpec(out_channels=440, strides=(32,), stages=STAGES)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """RegNetY-400MF up to its last map."""
    return without_classifier(classification_net(regnet_y_400mf, RegNet_Y_400MF_Weights.IMAGENET1K_V2, pretrained))
