"""A residual network after ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) with a quarter of its channels:
convolutions have biases, every shortcut is a convolution, and the first stage halves the map, too."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64, 128, 256)  # of the stem and of four stages; each halves the map, the stem twice


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norms beside a 1x1 convolution without."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.conv3(x))


def custom_resnet() -> nn.Sequential:
    """Stem and four stages of two blocks, with PyTorch's random weights: (B, 3, H, W) to (B, 256, H / 64, W / 64)."""
    stem = nn.Sequential(
        nn.Conv2d(3, CHANNELS[0], 7, 2, 3), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    )
    stages = (
        nn.Sequential(ResidualBlock(before, channels, 2), ResidualBlock(channels, channels, 1))
        for before, channels in pairwise(CHANNELS)
    )
    return nn.Sequential(stem, *stages)
