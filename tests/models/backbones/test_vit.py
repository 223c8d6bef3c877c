import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.backbones.vit import Block, RelativeAttention, ViT, merge_windows, relative_positions, split_windows
from tests.support.networks import randomized


def small_vit(drop_path: float = 0.0) -> ViT:
    return randomized(ViT(channels=32, depth=4, heads=2, global_blocks=(1, 3), drop_path=drop_path))


def attention_with_bias(attention: RelativeAttention, x: Tensor) -> Tensor:
    """The definition: a bias for every pair of places, from a vector for every pair."""
    batch, height, width, channels = x.shape
    q, k, v = attention.qkv(x).reshape(batch, height * width, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    of_rows = interpolated(attention.rel_pos_h, height)[row[:, None] - row + height - 1]
    of_columns = interpolated(attention.rel_pos_w, width)[column[:, None] - column + width - 1]
    bias = torch.einsum("bnid,ijd->bnij", q, of_rows + of_columns)
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + bias).softmax(-1)
    return attention.proj((weights @ v).transpose(1, 2).reshape(batch, height, width, channels))


def interpolated(table: Tensor, side: int) -> Tensor:
    """Rows of the table at the centers of 2 side - 1 equal parts of it, as a matrix product."""
    at = ((np.arange(2 * side - 1) + 0.5) * len(table) / (2 * side - 1) - 0.5).clip(0, len(table) - 1)
    weights = [np.interp(at, np.arange(len(table)), row) for row in np.eye(len(table))]
    return torch.from_numpy(np.array(weights).T).to(table) @ table


@pytest.mark.parametrize("size", [(6, 6), (6, 11), (13, 4), (1, 5), (1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_attention_and_its_gradients_are_those_of_an_explicit_bias(size, dtype, tolerance) -> None:
    """Also where the tables were made for another grid, here of 6 x 6 patches."""
    torch.manual_seed(0)
    attention = randomized(RelativeAttention(24, 3, side=6).to(dtype))
    x = torch.randn(2, *size, 24, dtype=dtype, requires_grad=True)
    cotangent = torch.randn_like(x)
    ours, expected = attention(x), attention_with_bias(attention, x)
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    inputs = (x, *attention.parameters())
    ours, expected = (torch.autograd.grad((y * cotangent).sum(), inputs) for y in (ours, expected))
    largest = max(g.abs().max() for g in expected).item()
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * largest)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that an operator gave."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_no_tensor_has_an_element_for_each_pair_of_places() -> None:
    places = 24 * 20
    attention, x = RelativeAttention(16, 2, side=8), torch.randn(1, 24, 20, 16)
    with LargestTensor() as ours:
        attention(x).sum().backward()
    with LargestTensor() as with_bias:
        attention_with_bias(attention, x).sum().backward()
    assert ours.elements < 2 * places**2 / 5 < 2 * places**2 <= with_bias.elements


@pytest.mark.parametrize("size", [(14, 14), (50, 84), (3, 2)])
def test_head_dimensions_are_those_of_fused_kernels(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Others make a GPU fall back to a kernel that has an element for each pair of places."""
    shapes: list[torch.Size] = []

    def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        shapes.extend(t.shape for t in (q, k, v))
        return v

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    with torch.device("meta"):
        RelativeAttention(128, 2, side=14)(torch.empty(1, *size, 128))
    assert len(set(shapes)) == 1
    assert shapes[0][-1] % 8 == 0


def test_relative_positions_are_query_minus_key() -> None:
    table = torch.arange(9.0)[:, None]  # of a side of 5
    assert relative_positions(table, 5)[..., 0].tolist() == [[4.0 + i - j for j in range(5)] for i in range(5)]
    torch.testing.assert_close(relative_positions(table, 3)[:, 0, 0], interpolated(table, 3)[2:, 0])


@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30), st.integers(1, 14))
def test_windows_hold_every_place_once(batch: int, height: int, width: int, side: int) -> None:
    x = torch.arange(1.0, batch * height * width + 1).view(batch, height, width, 1)
    windows = split_windows(x, side)
    assert windows.shape == (batch * -(-height // side) * -(-width // side), side, side, 1)
    assert windows.count_nonzero() == x.numel()
    assert torch.equal(windows[0, : min(side, height), : min(side, width)], x[0, :side, :side])
    assert torch.equal(merge_windows(windows, height, width), x)


@pytest.mark.parametrize(("window", "reach"), [(4, (slice(4, 8), slice(8, 10))), (None, (slice(0, 9), slice(0, 10)))])
def test_a_place_acts_on_its_window_alone(window: int | None, reach: tuple[slice, slice]) -> None:
    torch.manual_seed(0)
    block = randomized(Block(16, 2, window, drop_path=0.0))
    x = torch.randn(1, 9, 10, 16)
    other = x.clone()
    other[0, 5, 9] = torch.randn(16)
    differs = (block(x) - block(other)).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(9, 10, dtype=torch.bool)
    expected[reach] = True
    assert torch.equal(differs, expected)


@pytest.mark.parametrize("size", [(224, 224), (96, 240), (464, 256)])
def test_maps_are_those_of_transformers(size: tuple[int, int]) -> None:
    """Its own ViTDet, whose tables of relative positions are for 1024 px too."""
    transformers = pytest.importorskip("transformers")
    ours = small_vit().eval()
    config = transformers.VitDetConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=1024, pretrain_image_size=224,
        window_block_indices=[0, 2], window_size=14, use_relative_position_embeddings=True,
    )  # fmt: skip
    theirs = transformers.VitDetModel(config).eval()
    new_names = {
        "pos_embed": "embeddings.position_embeddings", "patch_embed.proj": "embeddings.projection",
        "blocks.": "encoder.layer.", ".attn.": ".attention.",
    }  # fmt: skip
    state = {}
    for key, value in ours.state_dict().items():
        for old, new in new_names.items():
            key = key.replace(old, new)
        state[key] = value
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    results, gradients = [], []
    for net, result in ((ours, ours(images)), (theirs, theirs(images).last_hidden_state)):
        results.append(result)
        gradients.append(torch.autograd.grad(result.square().mean(), list(net.parameters())[:1])[0])
    assert results[0].shape == (2, 32, size[0] // 16, size[1] // 16)
    for mine, expected in (results, gradients):
        assert (mine - expected).norm() <= 1e-6 * expected.norm()


def test_checkpointing_changes_memory_only() -> None:
    """Each block runs again in the backward pass, and leaves the same branches out."""
    net = small_vit(drop_path=0.5).train()
    images = torch.randn(4, 3, 64, 96)
    runs: list[int] = []
    net.blocks[1].attn.register_forward_hook(lambda *_: runs.append(1))
    losses, gradients = [], []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        losses.append(net(images).square().mean())
        gradients.append(torch.autograd.grad(losses[-1], list(net.parameters())))
    assert len(runs) == 3
    assert torch.equal(*losses)
    assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))
    net.eval()(images)
    assert len(runs) == 4
    net.set_grad_checkpointing(False)
    torch.manual_seed(1)
    assert not torch.equal(net.train()(images).square().mean(), losses[0])  # other branches


def test_branches_are_left_out_more_often_towards_the_end() -> None:
    rates = [block.drop_path.p for block in ViT(channels=8, depth=5, heads=1, global_blocks=(), drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_both_branches_can_be_left_out() -> None:
    x = torch.randn(2, 5, 6, 16)
    block = randomized(Block(16, 2, None, drop_path=1.0))
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_every_parameter_has_a_gradient_when_every_branch_is_left_out() -> None:
    """DistributedDataParallel waits for the gradients of all parameters."""
    net = small_vit(drop_path=1.0).train()
    net(torch.randn(1, 3, 32, 32)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_a_random_start_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    net = ViT(channels=64, depth=1, heads=1, global_blocks=())
    attention = net.blocks[0].attn
    for weight in (net.pos_embed, attention.qkv.weight, net.blocks[0].mlp.fc2.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not attention.qkv.bias.any()
    assert not attention.rel_pos_h.any()


def test_autocast_runs_in_bfloat16() -> None:
    net = small_vit().eval()
    randomized(net, std=0.1)
    images = torch.randn(1, 3, 96, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(images)
    expected = net(images)
    assert (half - expected).norm() < 0.02 * expected.norm()


@pytest.mark.full
def test_compiles_and_exports_without_a_break() -> None:
    net = small_vit().eval()
    images = torch.randn(1, 3, 96, 256)
    expected = net(images)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    exported = torch.export.export(net, (images,)).module()
    torch.testing.assert_close(exported(images), expected)


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_onnx_runs_it(dynamo: bool, tmp_path) -> None:
    """Fault: ONNX rounds a negative quotient towards 0, Python down, so the number of windows was wrong."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, images, path = small_vit().eval(), torch.randn(1, 3, 96, 256), str(tmp_path / "net.onnx")
    torch.onnx.export(net, (images,), path, dynamo=dynamo, opset_version=18 if dynamo else 17)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    expected = net(images)
    assert (torch.from_numpy(result) - expected).norm() <= 1e-5 * expected.norm()
