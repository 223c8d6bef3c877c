import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign

from models.rcnn.roi_pool import RoIPool
from tests.conftest import examples


def compare(strides: dict[str, int], height: int, width: int, boxes: list[torch.Tensor], channels: int = 6) -> None:
    """Our pooling in training against torchvision's: values and gradients."""
    torch.manual_seed(0)
    maps = {
        name: torch.randn(len(boxes), channels, -(-height // s), -(-width // s)).requires_grad_()
        for name, s in strides.items()
    }
    sizes = [(height, width)] * len(boxes)
    ours = RoIPool(strides)
    stock = MultiScaleRoIAlign(list(strides), 7, 2)
    stock.scales, stock.map_levels = ours.scales, ours.map_levels
    pooled = {}
    gradients = {}
    for name, pool in (("ours", ours), ("stock", stock)):
        pooled[name] = pool(maps, boxes, sizes)
        weight = torch.linspace(-1, 1, pooled[name].numel()).view_as(pooled[name])
        gradients[name] = torch.autograd.grad((pooled[name] * weight).sum(), list(maps.values()), allow_unused=True)
    torch.testing.assert_close(pooled["ours"], pooled["stock"], rtol=0, atol=5e-6)
    for own, other in zip(gradients["ours"], gradients["stock"], strict=True):
        expected = torch.zeros_like(own) if other is None else other
        size = max(1.0, float(expected.abs().max()))  # a cell sums up hundreds of terms of both signs, in another order
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5 * size)


CORNER = st.floats(-20, 160, width=32)


@examples(40)
@given(st.lists(st.tuples(CORNER, CORNER, CORNER, CORNER), min_size=1, max_size=8), st.sampled_from([8, 16, 32]))
def test_equal_to_torchvision_on_one_map(rows: list, stride: int) -> None:
    """Boxes inside, outside and across the border of the map, of any size."""
    corners = torch.tensor(rows)
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    compare({"0": stride}, 96, 128, [boxes, boxes[:0]])


def test_equal_to_torchvision_on_a_pyramid() -> None:
    torch.manual_seed(1)
    corners = torch.rand(60, 2) * 300
    boxes = torch.cat([corners, corners + torch.rand(60, 2) ** 3 * 600 + 1], 1)
    compare({"0": 4, "1": 8, "2": 16, "3": 32}, 640, 480, [boxes[:20], boxes[20:20], boxes[20:]])


def test_equal_to_torchvision_on_two_maps_of_one_stride() -> None:
    """MobileNetV3's pyramid: torchvision pools from the first of them."""
    compare({"0": 32, "1": 32}, 96, 128, [torch.tensor([[0.0, 0, 90, 90], [5, 5, 300, 300]])])


def test_strides_are_declared_not_guessed_from_the_first_image() -> None:
    """torchvision takes a map of 1 x 1 cells for an image of 20 px as stride 16, and keeps that for later images."""
    pool = RoIPool({"0": 32})
    pool({"0": torch.randn(1, 2, 1, 1)}, [torch.tensor([[0.0, 0, 20, 20]])], [(20, 20)])
    assert pool.scales == [1 / 32]


@pytest.mark.parametrize("grad", [True, False])
def test_pools_in_float32_whatever_the_features(grad: bool) -> None:
    features = torch.randn(1, 4, 3, 4, dtype=torch.bfloat16, requires_grad=grad)
    pooled = RoIPool({"0": 32})({"0": features}, [torch.tensor([[0.0, 0, 64, 64]])], [(96, 128)])
    assert pooled.dtype == torch.float32


def test_no_regions_at_all() -> None:
    """Fault: in training on a CPU, the shape of nothing could not be told."""
    features = torch.randn(2, 4, 3, 4, requires_grad=True)
    pooled = RoIPool({"0": 32})({"0": features}, [torch.zeros(0, 4)] * 2, [(96, 128)] * 2)
    assert pooled.shape == (0, 4, 7, 7)
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))
