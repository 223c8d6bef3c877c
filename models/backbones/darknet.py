"""Plain convolution stacks without batch norm, after the YOLOv1 network (Redmon et al. 2016,
https://arxiv.org/abs/1506.02640, figure 3): every convolution has a bias and is followed by LeakyReLU 0.1."""

import math
from collections.abc import Sequence

import torch
from torch import nn

SLOPE = 0.1
_MEAN = (1 - SLOPE) / math.sqrt(2 * math.pi)  # of LeakyReLU(x), x normal with variance 1
_VARIANCE = (1 + SLOPE**2) / 2 - _MEAN**2
POOL = "pool"  # 2 x 2 maximum, stride 2
MINI_LAYERS = (  # YOLOv1's order of layers, with a quarter of its channels and less
    (4, 7, 2), POOL,
    (8, 3), POOL,
    (16, 1), (32, 3), (64, 1), (128, 3), POOL,
    *((64, 1), (128, 3)) * 4, (128, 1), (256, 3), POOL,
    (128, 1), (256, 3), (128, 1), (128, 3),
)  # fmt: skip


def conv_stack(layers: Sequence[tuple[int, int] | tuple[int, int, int] | str], *, last_bare: bool = False) -> nn.Module:
    """A Sequential of convolutions and pools.

    Args:
        layers: POOL, or (channels, kernel side) or (channels, kernel side, stride); padding keeps the size.
        last_bare: the convolution before the last pool has no activation.

    Weights keep the variance of a signal over LeakyReLU (He et al. 2015, https://arxiv.org/abs/1502.01852), counted
    without its mean, because every filter is centered: it answers to differences in its input, not to its level. With
    PyTorch's own weights a signal fades to 0.4 in every layer, and a stack of twenty without batch norm does not
    learn; with He's alone most of what arrives is a constant. docs/results.md has the numbers.
    """
    last_pool = max(i for i, layer in enumerate(layers) if layer == POOL)
    modules: list[nn.Module] = []
    channels = 3
    for i, layer in enumerate(layers):
        if layer == POOL:
            modules.append(nn.MaxPool2d(2, 2))
            continue
        out, side, *stride = layer
        convolution = nn.Conv2d(channels, out, side, stride[0] if stride else 1, side // 2)
        _init_centered(convolution)
        modules.append(convolution)
        if not (last_bare and i + 1 == last_pool):
            modules.append(nn.LeakyReLU(SLOPE, inplace=True))
        channels = out
    return nn.Sequential(*modules)


@torch.no_grad()
def _init_centered(convolution: nn.Conv2d) -> None:
    fan_in = convolution.weight[0].numel()
    nn.init.normal_(convolution.weight, std=(fan_in * _VARIANCE) ** -0.5)
    convolution.weight -= convolution.weight.mean((1, 2, 3), keepdim=True)
    nn.init.zeros_(convolution.bias)
