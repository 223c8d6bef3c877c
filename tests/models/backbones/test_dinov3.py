"""Against timm and transformers, which carry DINOv3 networks of their own, with random weights that matter."""

import copy

import pytest
import torch
from torch import Tensor

from models.backbones.dinov3 import CONVNEXTS, VITS, WEIGHTS, ConvNeXt, VisionTransformer, build, completed
from tests.conftest import full_among
from tests.support.networks import randomized_dinov3

PARAMETERS = {
    "vits16": 21_601_152,
    "vits16plus": 28_697_472,
    "vitb16": 85_669_632,
    "vitl16": 303_154_176,
    "vith16plus": 840_633_600,
    "convnext_tiny": 27_820_128,
    "convnext_small": 49_454_688,
    "convnext_base": 87_566_464,
    "convnext_large": 196_230_336,
}
SMALL_VIT = {"embed_dim": 48, "depth": 4, "num_heads": 3}
SMALL_CONVNEXT = {"depths": (1, 2, 2, 1), "dims": (8, 16, 24, 32)}
SIZES = [(64, 64), (96, 160), (160, 48)]


def small(kind: str) -> VisionTransformer | ConvNeXt:
    if kind == "convnext":
        return randomized_dinov3(ConvNeXt(**SMALL_CONVNEXT))
    net = randomized_dinov3(
        VisionTransformer(**SMALL_VIT, **({"ffn_ratio": 6, "swiglu": True} if kind == "gated" else {}))
    )
    net.rope_embed.periods.copy_(net.rope_embed.periods.bfloat16().float())  # as the official files have them
    return net


@pytest.fixture(params=["plain", "gated"])
def vit(request) -> VisionTransformer:
    return small(request.param)


@pytest.fixture
def convnext() -> ConvNeXt:
    return small("convnext")


@pytest.fixture(params=["plain", "gated", "convnext"])
def net(request) -> VisionTransformer | ConvNeXt:
    return small(request.param)


def images_of(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def largest_difference(ours, others) -> float:
    assert [t.shape for t in ours] == [t.shape for t in others]
    return max((a - b).abs().max().item() for a, b in zip(ours, others, strict=True))


def test_every_network_has_its_parameters_and_its_file() -> None:
    assert PARAMETERS.keys() == WEIGHTS.keys() == {**VITS, **CONVNEXTS}.keys()
    for name, count in PARAMETERS.items():
        with torch.device("meta"):
            net = build(name)
        assert sum(p.numel() for p in net.parameters()) == count
        assert name in WEIGHTS[name]


def test_keys_are_those_of_the_official_vits() -> None:
    with torch.device("meta"):
        keys, gated = list(build("vits16").state_dict()), list(build("vits16plus").state_dict())

    def linear(*names: str) -> list[str]:
        return [f"{name}.{part}" for name in names for part in ("weight", "bias")]

    before = ["norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.qkv.bias_mask"]
    before += [*linear("attn.proj"), "ls1.gamma", *linear("norm2")]
    outside = ["cls_token", "storage_tokens", "mask_token", *linear("patch_embed.proj"), "rope_embed.periods"]
    for found, mlp in ((keys, linear("mlp.fc1", "mlp.fc2")), (gated, linear("mlp.w1", "mlp.w2", "mlp.w3"))):
        blocks = [f"blocks.{i}.{key}" for i in range(12) for key in (*before, *mlp, "ls2.gamma")]
        assert found == [*outside, *blocks, *linear("norm")]


def test_keys_are_those_of_the_official_convnexts() -> None:
    net = ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16))
    ends = [f"{i}.{part}" for i in range(2) for part in ("weight", "bias")]
    parts = ["gamma", *(f"{m}.{p}" for m in ("dwconv", "norm", "pwconv1", "pwconv2") for p in ("weight", "bias"))]
    assert list(net.state_dict()) == [
        *(f"downsample_layers.{i}.{end}" for i in range(4) for end in ends),
        *(f"stages.{i}.0.{part}" for i in range(4) for part in parts),
        *("norm.weight", "norm.bias", "norms.3.weight", "norms.3.bias"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_vit_equals_timms(vit: VisionTransformer, size) -> None:
    timm = pytest.importorskip("timm")
    gated = hasattr(vit.blocks[0].mlp, "w1")
    name = f"vit_small_{'plus_' if gated else ''}patch16_dinov3_qkvb"
    other = timm.create_model(name, pretrained=False, num_classes=0, **SMALL_VIT).eval()
    state = timm.models.eva.checkpoint_filter_fn(vit.state_dict(), other)  # timm's reader of official files
    other.load_state_dict(state)
    other.rope.periods.copy_(vit.rope_embed.periods)
    images = images_of(size)
    with torch.inference_mode():
        ours = vit.get_intermediate_layers(images, [1, 3], True, return_class_token=True, return_extra_tokens=True)
        theirs = other.forward_intermediates(
            images, indices=[1, 3], norm=True, intermediates_only=True, return_prefix_tokens=True
        )
        for (patches, class_token, extra), (other_patches, prefix) in zip(ours, theirs, strict=True):
            assert largest_difference((patches, extra), (other_patches, prefix[:, 1:])) == 0
            assert torch.equal(class_token, prefix[:, 0])
        assert torch.equal(vit.forward_features(images)["x_norm_patchtokens"], other.forward_features(images)[:, 5:])


@pytest.mark.parametrize("size", SIZES)
def test_vit_equals_that_of_transformers(vit: VisionTransformer, size) -> None:
    transformers = pytest.importorskip("transformers")
    gated = hasattr(vit.blocks[0].mlp, "w1")
    config = transformers.DINOv3ViTConfig(
        patch_size=16,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=192,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
    )
    other = transformers.DINOv3ViTModel(config).eval()
    other.load_state_dict(_of_transformers(vit.state_dict(), other.state_dict()))
    other.rope_embeddings.inv_freq.copy_(1 / vit.rope_embed.periods)
    images = images_of(size)
    with torch.inference_mode():
        found = vit.forward_features(images)
        expected = other(images).last_hidden_state
    tokens = torch.cat([found["x_norm_clstoken"][:, None], found["x_storage_tokens"], found["x_norm_patchtokens"]], 1)
    assert largest_difference([tokens], [expected]) < 1e-4  # it multiplies by 1 / periods


def _of_transformers(state, wanted) -> dict[str, Tensor]:
    names = {"register_tokens": "storage_tokens", "patch_embeddings": "patch_embed.proj", "up_proj": "fc1"}
    names |= {"down_proj": "fc2", "lambda1": "gamma", "layer_scale": "ls", "embeddings.": "", "attention": "attn"}
    names |= {"model.layer.": "blocks.", "o_proj": "proj"}
    gated = any(".w1." in key for key in state)
    result = {}
    for key in wanted:
        ours = key
        if gated:
            for theirs, mlp in (("gate_proj", "w1"), ("up_proj", "w2"), ("down_proj", "w3")):
                ours = ours.replace(theirs, mlp)
        for theirs, own in names.items():
            ours = ours.replace(theirs, own)
        for third, part in enumerate("qkv"):
            if f".{part}_proj." in ours:
                result[key] = state[ours.replace(f"{part}_proj", "qkv")].chunk(3)[third]
        if key not in result:
            result[key] = state[ours].reshape(wanted[key].shape)
    return result


@pytest.mark.parametrize("size", SIZES)
def test_convnext_equals_timms(convnext: ConvNeXt, size) -> None:
    timm = pytest.importorskip("timm")
    other = timm.create_model("convnext_tiny", pretrained=False, num_classes=0, **SMALL_CONVNEXT).eval()
    other.load_state_dict(timm.models.convnext.checkpoint_filter_fn(convnext.state_dict(), other))
    images = images_of(size)
    with torch.inference_mode():
        ours = convnext.get_intermediate_layers(images, n=4, reshape=True)
        theirs = other.forward_intermediates(images, intermediates_only=True)
        assert largest_difference(ours, [*theirs[:3], other.head.norm(theirs[3])]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_convnext_equals_that_of_transformers(convnext: ConvNeXt, size) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DINOv3ConvNextConfig(
        depths=list(SMALL_CONVNEXT["depths"]), hidden_sizes=list(SMALL_CONVNEXT["dims"])
    )
    other = transformers.DINOv3ConvNextModel(config).eval()
    names = {"depthwise_conv": "dwconv", "pointwise_conv": "pwconv", "layer_norm": "norm", "model.": ""}
    state = {}
    for key in other.state_dict():
        ours = key
        for theirs, own in names.items():
            ours = ours.replace(theirs, own)
        parts = ours.split(".")
        if parts[2:3] == ["downsample_layers"]:
            ours = ".".join([parts[2], parts[1], *parts[3:]])
        state[key] = convnext.state_dict()[ours.replace(".layers.", ".")]
    other.load_state_dict(state)
    images = images_of(size)
    with torch.inference_mode():
        found, expected = convnext.forward_features(images), other(images)
    assert largest_difference([found["x_norm_clstoken"]], [expected.pooler_output]) < 1e-5
    assert largest_difference([found["x_norm_patchtokens"]], [expected.last_hidden_state[:, 1:]]) < 1e-5


def test_forms_of_a_vits_intermediate_layers(vit: VisionTransformer) -> None:
    images = images_of((64, 96))
    with torch.inference_mode():
        tokens = vit.get_intermediate_layers(images, n=2)
        maps = vit.get_intermediate_layers(images, n=[2, 3], reshape=True)
        pairs = vit.get_intermediate_layers(images, n=(2, 3), return_class_token=True)
        extra = vit.get_intermediate_layers(images, n=2, return_extra_tokens=True)
        bare = vit.get_intermediate_layers(images, n=2, norm=False)
        features, class_token = vit.forward_features(images), vit(images)
        normed = [vit.norm(t) for t in bare]
        last = vit.norm(features["x_prenorm"])
    assert [t.shape for t in tokens] == [(2, 24, 48)] * 2
    assert [t.shape for t in maps] == [(2, 48, 4, 6)] * 2
    for i in range(2):
        assert torch.equal(maps[i].flatten(2).transpose(1, 2), tokens[i])
        assert torch.equal(pairs[i][0], tokens[i])
        assert torch.equal(extra[i][0], tokens[i])
        assert torch.equal(normed[i], tokens[i])
    assert torch.equal(pairs[1][1], class_token)
    assert torch.equal(extra[1][1], features["x_storage_tokens"])
    assert torch.equal(tokens[1], features["x_norm_patchtokens"])
    assert torch.equal(last[:, 5:], tokens[1])


def test_forms_of_a_convnexts_intermediate_layers(convnext: ConvNeXt) -> None:
    images = images_of((64, 96))
    with torch.inference_mode():
        tokens = convnext.get_intermediate_layers(images, n=4)
        maps = convnext.get_intermediate_layers(images, n=[0, 1, 2, 3], reshape=True)
        pairs = convnext.get_intermediate_layers(images, n=4, return_class_token=True)
        bare = convnext.get_intermediate_layers(images, n=4, norm=False, reshape=True, return_class_token=True)
        features, class_token = convnext.forward_features(images), convnext(images)
    assert [t.shape for t in maps] == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 24, 4, 6), (2, 32, 2, 3)]
    for i in range(4):
        assert torch.equal(maps[i].flatten(2).transpose(1, 2), tokens[i])
        assert torch.equal(pairs[i][0], tokens[i])
        assert torch.equal(bare[i][0].mean((2, 3)), bare[i][1])
        assert torch.equal(maps[i], bare[i][0]) == (i < 3)  # only the last stage has a norm
        assert torch.equal(pairs[i][1], bare[i][1]) == (i < 3)
    torch.testing.assert_close(pairs[3][1], class_token)
    torch.testing.assert_close(features["x_norm_patchtokens"], tokens[3])
    assert features["x_storage_tokens"].shape == (2, 0, 32)


def test_convnext_resizes_its_maps_to_patches(convnext: ConvNeXt) -> None:
    images = images_of((64, 96))
    resized = randomized_dinov3(ConvNeXt(**SMALL_CONVNEXT, patch_size=16))
    with torch.inference_mode():
        maps = resized.get_intermediate_layers(images, n=4, reshape=True)
        same = convnext.get_intermediate_layers(images, n=4, reshape=True)
    assert [m.shape[2:] for m in maps] == [(4, 6)] * 4
    assert torch.equal(maps[2], same[2])


@pytest.mark.parametrize("n", [5, [4], [-1], [1, 1]])
def test_layers_that_are_not_there(vit: VisionTransformer, convnext: ConvNeXt, n) -> None:
    for net in (vit, convnext):
        with pytest.raises(ValueError, match="expected at most 4, or different numbers from 0 to 3"):
            net.get_intermediate_layers(images_of((32, 32)), n)


def test_layers_come_in_their_own_order_whatever_the_order_asked_for(net) -> None:
    images = images_of((32, 64))
    with torch.inference_mode():
        found = net.get_intermediate_layers(images, [3, 0], return_class_token=True)
        expected = net.get_intermediate_layers(images, [0, 3], return_class_token=True)
    for pair, same in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, same, strict=True))


def test_pixels_beyond_whole_patches_are_not_looked_at(vit: VisionTransformer) -> None:
    images = images_of((70, 50))
    with torch.inference_mode():
        (found,) = vit.get_intermediate_layers(images, reshape=True)
        (expected,) = vit.get_intermediate_layers(images[:, :, :64, :48].contiguous(), reshape=True)
    assert torch.equal(found, expected)


def test_training_mode_computes_the_same(net) -> None:
    images = images_of((64, 96))
    with torch.inference_mode():
        expected = net.get_intermediate_layers(images)[0]
        assert torch.equal(net.train().get_intermediate_layers(images)[0], expected)


def test_a_bias_of_the_keys_is_masked(vit: VisionTransformer) -> None:
    images = images_of((32, 32))
    with torch.inference_mode():
        expected = vit(images)
        for block in vit.blocks:
            block.attn.qkv.bias[48:96].fill_(1e6)
        assert torch.equal(vit(images), expected)
        vit.blocks[0].attn.qkv.bias[0] += 1
        assert not torch.equal(vit(images), expected)


def test_masked_patches_are_not_seen(vit: VisionTransformer) -> None:
    images = images_of((32, 48))
    masks = torch.zeros(2, 6, dtype=torch.bool)
    masks[:, 1] = True
    other = images.clone()
    other[:, :, :16, 16:32] = 0
    with torch.inference_mode():
        assert torch.equal(vit(images, masks), vit(other, masks))
        assert not torch.equal(vit(images, masks), vit(images))
        assert torch.equal(vit(images, torch.zeros_like(masks)), vit(images))


def test_one_place_matters_to_another(vit: VisionTransformer) -> None:
    """Without rotary positions, images that differ in the order of their patches would have the same class token."""
    images = images_of((32, 64))
    with torch.inference_mode():
        assert (vit(images) - vit(images.flip(3).unflatten(3, (4, 16)).flip(4).flatten(3))).abs().max() > 1e-3


def test_checkpointing_computes_blocks_twice_and_gives_the_same_gradients(net) -> None:
    other = copy.deepcopy(net)
    other.set_grad_checkpointing()
    images = images_of((32, 64))
    calls = []
    for each, count in ((net, 1), (other, 2)):
        last = each.stages[-1][-1] if isinstance(each, ConvNeXt) else each.blocks[-1]
        last.register_forward_pre_hook(lambda *_, each=each: calls.append(each))
        each.get_intermediate_layers(images)[0].square().mean().backward()
        assert calls.count(each) == count
    for (name, parameter), same in zip(net.named_parameters(), other.parameters(), strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(same.grad, parameter.grad, rtol=0, atol=0)


@pytest.mark.parametrize("net", ["plain", *full_among(OTHERS := ["gated", "convnext"], OTHERS)], indirect=True)
def test_torch_compile_takes_all_of_it(net) -> None:
    """Fault: the union of two dicts broke the graph."""
    images = images_of((32, 64))
    with torch.no_grad():
        for function in (net, lambda x: net.get_intermediate_layers(x, 4, reshape=True, return_class_token=True)[3][0]):
            compiled = torch.compile(function, backend="eager", fullgraph=True)
            assert torch.equal(compiled(images), function(images))
    torch.compiler.reset()


def test_bfloat16_autocast(net) -> None:
    images = images_of((64, 64))
    with torch.inference_mode():
        expected = net.get_intermediate_layers(images)[0]
        with torch.autocast("cpu", torch.bfloat16):
            found = net.get_intermediate_layers(images)[0]
    assert (found - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("name", ["vits16", "convnext_tiny"])
def test_random_weights_let_a_signal_through(name: str) -> None:
    torch.manual_seed(0)
    (last,) = build(name).get_intermediate_layers(images_of((64, 64), batch=1), reshape=True)
    assert last.isfinite().all()
    assert last.std((2, 3)).mean() > 0.01


def test_a_last_norm_under_one_of_its_names_is_enough(convnext: ConvNeXt) -> None:
    state = convnext.state_dict()
    for dropped in ("norm.", "norms.3."):
        some = {key: value for key, value in state.items() if not key.startswith(dropped)}
        assert len(some) == len(state) - 2
        full = completed(some)
        assert full.keys() == state.keys()
        assert all(torch.equal(full[key], state[key]) for key in state)
    vit_state = VisionTransformer(**SMALL_VIT).state_dict()
    assert completed(vit_state).keys() == vit_state.keys()
