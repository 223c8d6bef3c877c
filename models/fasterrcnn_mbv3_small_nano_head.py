"""Faster R-CNN on MobileNetV3-Small with a narrow last layer, and a 128-wide box head ("nano").

Paper: Howard et al. 2019, https://arxiv.org/abs/1905.02244
Weights: ImageNet, torchvision MobileNet_V3_Small_Weights.IMAGENET1K_V1 (BSD-3-Clause), but for the last layer.
Cost: 1.9 M parameters, 1.3 GFLOPs, strides 32.
"""

from functools import partial

from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
from torchvision.ops import Conv2dNormActivation

from models.backbones.torchvision_nets import classification_net
from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions

LAST = 12  # child of .features, a 1x1 convolution from 96 channels: the only new layer, always random
SPEC = BackboneSpec(out_channels=128, strides=(32,), head_width=128)


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """MobileNetV3-Small whose last layer has 128 channels."""
    net = classification_net(mobilenet_v3_small, MobileNet_V3_Small_Weights.IMAGENET1K_V1, pretrained)
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # as in the rest of MobileNetV3
    net.features[LAST] = Conv2dNormActivation(96, SPEC.out_channels, 1, norm_layer=norm, activation_layer=nn.Hardswish)
    return net.features
