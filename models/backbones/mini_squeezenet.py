"""SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360) with a quarter of the channels at its end."""

from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1
from torchvision.models.squeezenet import Fire

from models.building.pretrained import load_published

CHANNELS = 128
LAST = 12  # child of .features: the only new, always random, layers


def mini_squeezenet1_1(pretrained: bool) -> nn.Sequential:
    """All layers but the last module have torchvision's ImageNet weights, if `pretrained`; a map of stride 16."""
    net = squeezenet1_1()
    if pretrained:
        load_published(net, SqueezeNet1_1_Weights.IMAGENET1K_V1)
    last = Fire(512, 32, CHANNELS // 2, CHANNELS // 2)
    for convolution in (last.squeeze, last.expand1x1, last.expand3x3):
        nn.init.kaiming_uniform_(convolution.weight)  # as torchvision's SqueezeNet
        nn.init.zeros_(convolution.bias)
    net.features[LAST] = last
    return net.features
