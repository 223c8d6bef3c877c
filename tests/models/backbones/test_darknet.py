import torch
from torch import nn

from models.backbones.darknet import MINI_LAYERS, POOL, conv_stack


def test_a_signal_passes_a_deep_stack() -> None:
    """With PyTorch's own weights it fades to 1e-8 of its size, and the network does not learn."""
    torch.manual_seed(0)
    stack = conv_stack(MINI_LAYERS, last_bare=True)
    out = stack(torch.randn(2, 3, 128, 128))
    assert out.shape == (2, 128, 4, 4)
    assert 0.05 < out.std() < 20
    assert out.std((2, 3)).mean() > out.std() / 4  # and most of it differs from place to place


def test_layout() -> None:
    stack = conv_stack(((4, 3), POOL, (8, 1), (8, 3, 2), POOL, (2, 1)), last_bare=True)
    kinds = [type(m) for m in stack]
    assert kinds == [
        nn.Conv2d, nn.LeakyReLU, nn.MaxPool2d, nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.MaxPool2d, nn.Conv2d,
        nn.LeakyReLU,
    ]  # fmt: skip
    assert stack(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 2, 2)
