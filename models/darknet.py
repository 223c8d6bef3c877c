"""Plain convolution stacks without batch norm, after the YOLOv1 network (Redmon et al. 2016,
https://arxiv.org/abs/1506.02640, figure 3): every convolution has a bias and is followed by LeakyReLU 0.1."""

from collections.abc import Sequence

from torch import nn

SLOPE = 0.1
POOL = "pool"  # 2 x 2 maximum, stride 2


def conv_stack(layers: Sequence[tuple[int, int] | tuple[int, int, int] | str], *, last_bare: bool = False) -> nn.Module:
    """A Sequential of convolutions and pools.

    Args:
        layers: POOL, or (channels, kernel side) or (channels, kernel side, stride); padding keeps the size.
        last_bare: the convolution before the last pool has no activation.

    The weights are drawn for LeakyReLU (He et al. 2015, https://arxiv.org/abs/1502.01852): with PyTorch's default a
    signal fades by 0.4 in every layer, and a stack of twenty without batch norm does not learn.
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
        nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
        nn.init.zeros_(convolution.bias)
        modules.append(convolution)
        if not (last_bare and i + 1 == last_pool):
            modules.append(nn.LeakyReLU(SLOPE, inplace=True))
        channels = out
    return nn.Sequential(*modules)
