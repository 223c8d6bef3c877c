import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.simple_feature_pyramid import ChannelLayerNorm, SimpleFeaturePyramid
from tests.support.networks import randomized


class Net(nn.Conv2d):
    """One map of stride 16, and a note of whether it is to be checkpointed."""

    def __init__(self, channels: int) -> None:
        super().__init__(3, channels, 16, 16)
        self.checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointing = enable


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (112, 80)])
def test_maps_have_their_strides(size: tuple[int, int]) -> None:
    maps = SimpleFeaturePyramid(Net(12), 12, 8)(torch.randn(2, 3, *size))
    expected = {name: (2, 8, size[0] // s, size[1] // s) for name, s in zip("0123", (4, 8, 16, 32), strict=True)}
    expected["pool"] = (2, 8, *((side + 1) // 2 for side in expected["3"][2:]))
    assert list(maps) == list(expected)
    assert {name: tuple(m.shape) for name, m in maps.items()} == expected
    assert torch.equal(maps["pool"], maps["3"][:, :, ::2, ::2])


def test_the_net_comes_last_and_the_pooled_level_begins_with_its_pool() -> None:
    pyramid = SimpleFeaturePyramid(Net(8), 8)
    assert [name for name, _ in pyramid.named_children()] == ["simfp_2", "simfp_3", "simfp_4", "simfp_5", "net"]
    assert next(iter(pyramid.simfp_5.state_dict())) == "1.weight"
    assert pyramid.simfp_2[3].weight.shape == (4, 2, 2, 2)
    assert pyramid.simfp_2[5].weight.shape == (256, 256, 3, 3)


def norm_by_definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centered = x - x.mean(1, keepdim=True)
    scaled = centered / (centered.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * weight[:, None, None] + bias[:, None, None]


def test_a_layer_norm_is_over_channels() -> None:
    torch.manual_seed(0)
    norm = randomized(ChannelLayerNorm(5))
    x = torch.randn(2, 5, 3, 4) * 1e-3  # so small that the epsilon counts
    torch.testing.assert_close(norm(x), norm_by_definition(x, norm.weight, norm.bias))


def test_levels_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    pyramid = randomized(SimpleFeaturePyramid(Net(12), 12, 8))
    images = torch.randn(2, 3, 64, 96)

    def double(x: Tensor, key: str) -> Tensor:
        return F.conv_transpose2d(x, weights[f"{key}.weight"], weights[f"{key}.bias"], stride=2)

    def normed(x: Tensor, key: str) -> Tensor:
        return norm_by_definition(x, weights[f"{key}.weight"], weights[f"{key}.bias"])

    def level(x: Tensor, name: str, first: int) -> Tensor:
        x = normed(F.conv2d(x, weights[f"{name}.{first}.weight"]), f"{name}.{first}.norm")
        return normed(F.conv2d(x, weights[f"{name}.{first + 1}.weight"], padding=1), f"{name}.{first + 1}.norm")

    weights = pyramid.state_dict()
    with torch.no_grad():
        x, maps = pyramid.net(images), pyramid(images)
    quadrupled = double(F.gelu(normed(double(x, "simfp_2.0"), "simfp_2.1")), "simfp_2.3")
    expected = {
        "0": level(quadrupled, "simfp_2", 4),
        "1": level(double(x, "simfp_3.0"), "simfp_3", 1),
        "2": level(x, "simfp_4", 0),
        "3": level(F.max_pool2d(x, 2), "simfp_5", 1),
    }
    for name, one in expected.items():
        torch.testing.assert_close(maps[name], one, rtol=1e-4, atol=1e-4)


def test_checkpointing_is_the_nets() -> None:
    pyramid = SimpleFeaturePyramid(Net(8), 8)
    pyramid.set_grad_checkpointing()
    assert pyramid.net.checkpointing
    pyramid.set_grad_checkpointing(False)
    assert not pyramid.net.checkpointing
