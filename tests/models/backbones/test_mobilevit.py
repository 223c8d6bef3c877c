import pytest
import torch
from torch import nn

from models.backbones.mobilevit import FILE, MobileViTBlock, mobilevit_xxs, take_normalized_rgb
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.support.networks import SMALL_HEAD, randomize_norms

PARTS = ("conv_1", "layer_1", "layer_2", "layer_3", "layer_4", "layer_5", "conv_1x1_exp")


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    net = mobilevit_xxs().eval()
    randomize_norms(net)
    return net


def published_state(net: nn.Sequential) -> dict:
    """A state dict under the names of the authors' file, with the classifier that is in it."""
    state = {}
    for key, value in net.state_dict().items():
        part, rest = key.split(".", 1)
        state[f"{PARTS[int(part)]}.{rest}"] = value.clone()
    return {**state, "classifier.fc.weight": torch.ones(1000, 320), "classifier.fc.bias": torch.ones(1000)}


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (200, 136), (225, 97), (33, 65)])
def test_maps_are_timms(net: nn.Sequential, size: tuple[int, int]) -> None:
    """The same tensors in the same order; (200, 136) and the others after it have maps that patches do not divide."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilevit_xxs", num_classes=0, global_pool="").eval()
    own = net.state_dict()
    assert [v.shape for v in own.values()] == [v.shape for v in theirs.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), own.values(), strict=True)))
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(net(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_attention_joins_the_cells_of_one_place_in_their_patches() -> None:
    """An impulse before the transformers reaches cells an even distance away in both directions, and no others."""
    torch.manual_seed(0)
    block = MobileViTBlock(8, 16, 1).eval()
    block.local_rep = nn.Identity()
    block.conv_proj = nn.Identity()
    block.fusion = nn.Identity()
    x = torch.randn(1, 16, 6, 10, requires_grad=True)
    attended = block(x)[:, 16:]  # behind the block's input
    (attended[0, :, 3, 4] @ torch.randn(16)).backward()
    touched = x.grad.abs().sum((0, 1)) > 0
    assert touched[1::2, 0::2].all()
    assert touched.sum() == 3 * 5


def test_a_first_layer_for_bgr_gives_the_same_for_normalized_rgb(net: nn.Sequential) -> None:
    """But at the border, where the padding was black and has the mean color now."""
    torch.manual_seed(1)
    transform = create_model["fasterrcnn_mobilevit_xxs"](3, pretrained=False, options=SMALL_HEAD).transform
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.image_mean, transform.image_std))
    bgr = torch.rand(1, 3, 40, 60)
    first = net[0]
    with torch.inference_mode():
        expected = first(bgr)
        normalized = (bgr.flip(1) - mean) / std
        assert (first(normalized) - expected).abs().max() > 0.1
        take_normalized_rgb(first)
        result = first(normalized)
    torch.testing.assert_close(result[..., 1:, 1:], expected[..., 1:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("mobilevit_xxs", 7), ("mobilevit_xxs_fpn", 6)])
def test_the_published_file_is_renamed(net: nn.Sequential, weights_folder, name: str, count: int) -> None:
    torch.save(published_state(net), weights_folder / FILE)
    backbone = create_model[f"fasterrcnn_{name}"](3, options=SMALL_HEAD).backbone
    own = (backbone if count == 7 else backbone.body).state_dict()
    take_normalized_rgb(net[0])
    expected = {key: value for key, value in net.state_dict().items() if int(key[0]) < count}
    assert list(own) == list(expected)
    assert all(torch.equal(own[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer_3.1.global_rep.2.bias"), r"they lack 3\.1\.global_rep\.2\.bias"),
        (lambda state: state.update({"layer_6.0.weight": torch.ones(1)}), r"they also have layer_6\.0\.weight"),
        (lambda state: state.update({"conv_1.block.conv.weight": torch.ones(1)}), r"another shape for 0\.block\.conv"),
    ],
)
def test_another_networks_file_is_refused(net: nn.Sequential, weights_folder, change, message: str) -> None:
    state = published_state(net)
    change(state)
    torch.save(state, weights_folder / FILE)
    with pytest.raises(ModelError, match=message):
        create_model["fasterrcnn_mobilevit_xxs"](3)


def test_every_parameter_is_trained_on_a_map_that_patches_do_not_divide() -> None:
    torch.manual_seed(0)
    net = mobilevit_xxs().train()
    net(torch.randn(2, 3, 72, 104)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().sum() > 0] == []
