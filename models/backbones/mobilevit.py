"""MobileViT-XXS (Mehta and Rastegari 2022, https://arxiv.org/abs/2110.02178): convolutions, and attention among the
cells at the same position in their patches. Parameters are named as in the authors' library, CVNets."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.building.pretrained import load_state, read_state, weights_file

FILE = "mobilevit_xxs.pt"
URL = f"https://docs-assets.developer.apple.com/ml-research/models/cvnets/classification/{FILE}"
PATCH = 2  # cells, side
HEADS = 4
EXPANSION = 2  # of inverted residuals, and of the transformers' linear layers
_PARTS = ("conv_1", "layer_1", "layer_2", "layer_3", "layer_4", "layer_5", "conv_1x1_exp")  # as the file calls them
_CLASSIFIER = "classifier."
_MEAN = (0.485, 0.456, 0.406)  # RGB, which a detector takes off before it divides by _STD
_STD = (0.229, 0.224, 0.225)


class ConvBlock(nn.Module):
    """A convolution without bias, followed by a batch norm and SiLU unless switched off."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        side: int,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(in_channels, out_channels, side, stride, side // 2, groups=groups, bias=False)
        self.block = nn.Sequential(OrderedDict(conv=convolution))
        if norm:
            self.block.add_module("norm", nn.BatchNorm2d(out_channels))
        if act:
            self.block.add_module("act", nn.SiLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        return self.block(x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381): wider, depthwise, narrow again."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        wide = in_channels * EXPANSION
        self.block = nn.Sequential(
            OrderedDict(
                exp_1x1=ConvBlock(in_channels, wide, 1),
                conv_3x3=ConvBlock(wide, wide, 3, stride, groups=wide),
                red_1x1=ConvBlock(wide, out_channels, 1, act=False),
            )
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        return x + self.block(x) if self.has_shortcut else self.block(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, channels), in and out."""
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # each (N, HEADS, tokens, c)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """A layer of a transformer, norms first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * EXPANSION
        self.pre_norm_mha = nn.Sequential(nn.LayerNorm(channels), SelfAttention(channels))
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, wide),
            nn.SiLU(),
            nn.Identity(),  # CVNets counts a dropout here, of 0
            nn.Linear(wide, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, channels), in and out."""
        x = x + self.pre_norm_mha(x)
        return x + self.pre_norm_ffn(x)


class MobileViTBlock(nn.Module):
    """Convolutions, transformers over the whole map, and a convolution over their results and the block's input."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.local_rep = nn.Sequential(
            OrderedDict(
                conv_3x3=ConvBlock(channels, channels, 3),
                conv_1x1=ConvBlock(channels, width, 1, norm=False, act=False),
            )
        )
        self.global_rep = nn.Sequential(*(Transformer(width) for _ in range(depth)), nn.LayerNorm(width))
        self.conv_proj = ConvBlock(width, channels, 1)
        self.fusion = ConvBlock(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), in and out; a map that patches do not divide is resized for the transformers."""
        y = self.local_rep(x)
        height, width = y.shape[-2:]
        rows, columns = (height + PATCH - 1) // PATCH, (width + PATCH - 1) // PATCH  # ONNX rounds -x // 2 to zero
        whole = (rows * PATCH, columns * PATCH)
        divides = whole == (height, width)
        if not divides:
            y = F.interpolate(y, whole, mode="bilinear", align_corners=False)
        tokens = y.unflatten(3, (columns, PATCH)).unflatten(2, (rows, PATCH))  # (B, C, rows, PATCH, columns, PATCH)
        tokens = tokens.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(0, 2)  # (B PATCH^2, rows columns, C)
        tokens = self.global_rep(tokens)
        y = tokens.unflatten(0, (-1, PATCH, PATCH)).unflatten(3, (rows, columns))  # (B, PATCH, PATCH, rows, columns, C)
        y = y.permute(0, 5, 3, 1, 4, 2).flatten(4, 5).flatten(2, 3)
        if not divides:
            y = F.interpolate(y, (height, width), mode="bilinear", align_corners=False)
        return self.fusion(torch.cat((x, self.conv_proj(y)), 1))


def mobilevit_xxs(pretrained: bool = False) -> nn.Sequential:
    """The network up to its last map, (B, 3, H, W) to (B, 320, H / 32, W / 32).

    Args:
        pretrained: load ImageNet weights, for images as a detector normalizes them.

    Raises:
        ModelError: see `load_cvnets`.
    """
    net = nn.Sequential(
        ConvBlock(3, 16, 3, 2),
        nn.Sequential(InvertedResidual(16, 16)),
        nn.Sequential(InvertedResidual(16, 24, 2), InvertedResidual(24, 24), InvertedResidual(24, 24)),
        nn.Sequential(InvertedResidual(24, 48, 2), MobileViTBlock(48, 64, 2)),
        nn.Sequential(InvertedResidual(48, 64, 2), MobileViTBlock(64, 80, 4)),
        nn.Sequential(InvertedResidual(64, 80, 2), MobileViTBlock(80, 96, 3)),
        ConvBlock(80, 320, 1),
    )
    if pretrained:
        load_cvnets(net)
    return net


def load_cvnets(net: nn.Sequential) -> None:
    """Load the ImageNet weights of the authors' library into `mobilevit_xxs()`.

    Raises:
        WeightsNotHereError: the file is not on disk and cannot be fetched.
        ModelError: it is damaged, or of another network.
    """
    state = {}
    for key, value in read_state(weights_file(FILE, URL)).items():
        part, _, rest = key.partition(".")
        if part in _PARTS:
            state[f"{_PARTS.index(part)}.{rest}"] = value
        elif not key.startswith(_CLASSIFIER):
            state[key] = value  # load_state reports it as unexpected
    load_state(net, state)
    take_normalized_rgb(net[0])


@torch.no_grad()
def take_normalized_rgb(first: ConvBlock) -> None:
    """Give a layer that was trained on BGR from 0 to 1 the same results on (RGB - mean) / std.

    A weight w of x = std n + mean is w std of n, and w mean is left over: a constant for each channel, which the batch
    norm's running mean takes. So nothing changes but at the border, whose padding was black and now has the mean
    color.
    """
    convolution, norm = first.block.conv, first.block.norm
    weight = convolution.weight.flip(1)
    mean, std = (weight.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    norm.running_mean -= (weight * mean).sum((1, 2, 3))
    convolution.weight.copy_(weight * std)
