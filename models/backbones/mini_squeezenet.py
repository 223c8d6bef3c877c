"""SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360) with a quarter of the channels at its end."""

from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.models.squeezenet import Fire

from models.backbones.torchvision_nets import classification_net

CHANNELS = 128
LAST = 12  # child of .features: the only new layers, always random


def mini_squeezenet1_1(pretrained: bool) -> nn.Sequential:
    """The backbone, one map of stride 16; `pretrained` loads ImageNet weights into all but the last module."""
    net = classification_net(squeezenet1_1, SqueezeNet1_1_Weights.IMAGENET1K_V1, pretrained)
    last = Fire(512, 32, CHANNELS // 2, CHANNELS // 2)
    for convolution in (last.squeeze, last.expand1x1, last.expand3x3):
        nn.init.kaiming_uniform_(convolution.weight)  # as torchvision's SqueezeNet
        nn.init.zeros_(convolution.bias)
    net.features[LAST] = last
    return net.features
