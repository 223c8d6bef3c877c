"""The simple feature pyramid of ViTDet (Li et al. 2022, https://arxiv.org/abs/2203.16527): five maps from one."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class SimpleFeaturePyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from the last map of a plain backbone, and at 64 for the RPN alone.

    Args:
        net: (B, 3, H, W) -> (B, channels, H / 16, W / 16), float; has set_grad_checkpointing(enable) if it can.
        channels: of net's map, a multiple of 4.
        out_channels: of every map that the pyramid gives.
    """

    def __init__(self, net: nn.Module, channels: int, out_channels: int = 256) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        four_times = (_double(channels, half), ChannelLayerNorm(half), nn.GELU(), _double(half, quarter))
        self.simfp_2 = nn.Sequential(*four_times, *_to_level(quarter, out_channels))
        self.simfp_3 = nn.Sequential(_double(channels, half), *_to_level(half, out_channels))
        self.simfp_4 = nn.Sequential(*_to_level(channels, out_channels))
        self.simfp_5 = nn.Sequential(nn.MaxPool2d(2), *_to_level(channels, out_channels))
        self.net = net

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0" to "3", finest first, and "pool"; all (B, out_channels, H / stride, W / stride)."""
        x = self.net(images)
        levels = (self.simfp_2, self.simfp_3, self.simfp_4, self.simfp_5)
        maps = OrderedDict((str(i), level(x)) for i, level in enumerate(levels))
        maps["pool"] = F.max_pool2d(maps["3"], kernel_size=1, stride=2)
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let the net recompute its activations in the backward pass, which saves memory and costs a forward pass."""
        self.net.set_grad_checkpointing(enable)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a (B, C, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Shape and dtype stay; the memory format becomes channels last."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _NormedConv2d(nn.Conv2d):
    """Convolution that keeps height and width, and a norm that is its child: keys weight, norm.weight, norm.bias."""

    def __init__(self, channels: int, out_channels: int, side: int) -> None:
        super().__init__(channels, out_channels, side, padding=side // 2, bias=False)
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


def _double(channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, out_channels, kernel_size=2, stride=2)


def _to_level(channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return _NormedConv2d(channels, out_channels, 1), _NormedConv2d(out_channels, out_channels, 3)
