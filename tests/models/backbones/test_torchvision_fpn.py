from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import get_model, list_models
from torchvision.models.feature_extraction import create_feature_extractor

from models.backbones.measured_fpn import FeatureMap, MapPyramid, choose, measure
from models.backbones.simple_feature_pyramid import ChannelLayerNorm
from models.backbones.torchvision_fpn import torchvision_names
from models.building.build_options import RANDOM, BuildOptions
from models.building.norms import batch_norms
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import full_among
from tests.support.batches import batch_of
from tests.support.networks import check_declarations

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_t", "swin_v2_t", "vgg11",
    "vgg11_bn",
)  # fmt: skip
LARGE = {  # and what is much like a smaller one
    "convnext_tiny", "densenet121", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2", "regnet_x_400mf",
    "regnet_y_400mf", "resnext50_32x4d", "squeezenet1_0", "swin_b", "swin_v2_t", "vgg11_bn",
}  # fmt: skip
LAST_OF_EACH_STRIDE = {
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "densenet121": ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"],
    "swin_t": ["features.1", "features.3", "features.5", "norm"],
    "mobilenet_v3_small": ["features.1", "features.3", "features.8", "features.12"],
}


def on_meta(name: str, **options):
    with torch.device("meta"):
        return create_model[f"torchvision/{name}"](3, pretrained=False, **options)


@pytest.mark.parametrize("name", full_among(FAMILIES, LARGE))
def test_a_net_of_every_family_gives_what_is_declared(name: str) -> None:
    check_declarations(on_meta(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(list_models(module=torchvision.models)) - set(FAMILIES)))
def test_every_net_gives_what_is_declared_or_is_refused(name: str) -> None:
    if name in torchvision_names():
        check_declarations(on_meta(name))
    else:
        with pytest.raises(ModelError, match="takes images of one size only"):
            on_meta(name)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", *full_among(ALSO := ["resnet18", "squeezenet1_1"], ALSO)])
def test_trains_detects_and_is_saved(name: str) -> None:
    torch.manual_seed(0)
    model = create_model[f"torchvision/{name}"](3, pretrained=False, options=RANDOM).train()
    losses = model(batch_of([2, 0]))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.inference_mode():
        detections = model(batch_of([0, 1], (160, 96)))
    assert all(d["boxes"].shape == (len(d["scores"]), 4) for d in detections)
    other = create_model[f"torchvision/{name}"](3, pretrained=False, options=BuildOptions())
    other.load_state_dict(model.state_dict(), strict=True)


def test_the_keys_are_torchvisions_whatever_the_options() -> None:
    state = on_meta("resnet18").state_dict()
    assert [k for k in state if k.startswith("backbone.body.")] == [
        f"backbone.body.{k}" for k in get_model("resnet18").state_dict() if not k.startswith("fc.")
    ]
    for norm in ("batch", "frozen"):
        assert list(on_meta("resnet18", options=BuildOptions(norm=norm)).state_dict()) == list(state)
    normed = on_meta("resnet18", options=BuildOptions(norm="group"))
    assert batch_norms(normed.backbone) == []


@pytest.mark.parametrize("name", full_among(LAST_OF_EACH_STRIDE, {"densenet121", "swin_t"}))
def test_the_pyramid_reads_the_last_map_of_each_stride(name: str) -> None:
    model = create_model[f"torchvision/{name}"](3, pretrained=False).eval()
    net = get_model(name).eval()
    net.load_state_dict(model.backbone.body.state_dict(), strict=False)
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        expected = create_feature_extractor(net, LAST_OF_EACH_STRIDE[name])(images)
        for own, other in zip(model.backbone.body(images), expected.values(), strict=True):
            torch.testing.assert_close(own, other)


def test_maps_of_nets_without_batch_norms_are_normed() -> None:
    """The residual stream of a Swin Transformer has no particular scale; batch norms leave one that has."""
    first = [lateral[0] for lateral in on_meta("swin_t").backbone.fpn.inner_blocks]
    assert all(isinstance(layer, ChannelLayerNorm) for layer in first)
    first = [lateral[0] for lateral in on_meta("resnet18").backbone.fpn.inner_blocks]
    assert not any(isinstance(layer, ChannelLayerNorm) for layer in first)


def test_the_trunk_can_be_exported() -> None:
    """Fault: torch.export does not know get_submodule."""
    trunk = on_meta("squeezenet1_1").backbone.body.to_empty(device="cpu").eval()
    nn.init.ones_(trunk.features[0].weight)
    torch.export.export(trunk, (torch.rand(1, 3, 64, 96),))


def test_parameters_are_counted_without_memory() -> None:
    """RegNets cannot be built on the meta device by torchvision alone."""
    real = create_model["torchvision/regnet_y_400mf"](3, pretrained=False)
    assert sum(p.numel() for p in on_meta("regnet_y_400mf").parameters()) == sum(p.numel() for p in real.parameters())
    assert all(p.is_meta for p in on_meta("regnet_y_400mf").parameters())


@pytest.mark.parametrize(
    ("name", "children"),
    [("resnet18", ("conv1", "bn1", "layer1")), ("vgg11_bn", ("features.0", "features.1", "features.4", "features.5"))],
)
def test_freezing_goes_on_from_the_image(name: str, children: tuple[str, ...]) -> None:
    model = on_meta(name, options=BuildOptions(norm="batch", freeze=2))
    starts = tuple(f"backbone.body.{child}." for child in children)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        n for n, _ in model.named_parameters() if n.startswith(starts)
    }


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        options = BuildOptions(norm="frozen", freeze=0, activation_checkpointing=recompute)
        backbone = create_model["torchvision/mobilenet_v3_small"](3, pretrained=False, options=options).train().backbone
        sum(m.square().mean() for m in backbone(torch.rand(1, 3, 64, 96)).values()).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.requires_grad])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b_16", "torchvision/vit_b_16 takes images of one size only.*: take timm/vit_base_patch16_224"),
        ("maxvit_t", "torchvision/maxvit_t takes images of one size only.*: take torchvision/swin_t"),
        ("resnet19", "unknown model 'torchvision/resnet19': did you mean torchvision/resnet18, "),
        ("fasterrcnn_resnet50_fpn", "unknown model 'torchvision/fasterrcnn_resnet50_fpn'"),
        ("r3d_18", "unknown model 'torchvision/r3d_18'"),
        ("", "unknown model 'torchvision/'"),
    ],
)
def test_a_net_that_cannot_be_taken(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model[f"torchvision/{name}"](3)


def test_names() -> None:
    assert torchvision_names("squeezenet*") == ["squeezenet1_0", "squeezenet1_1"]
    assert set(FAMILIES) <= set(torchvision_names())
    assert not any(name.startswith(("vit_", "maxvit_")) for name in torchvision_names())


def test_without_network_the_message_says_what_to_do(weights_folder: Path) -> None:
    with pytest.raises(ModelError) as error:
        create_model["torchvision/shufflenet_v2_x0_5"](3)
    for part in ("shufflenetv2_x0.5-f707e7126e.pth", "https://download", str(weights_folder), "--no-pretrained"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("resnet18", "resnet18-f37072fd.pth", marks=pytest.mark.full),
        ("mnasnet0_5", "mnasnet0.5_top1_67.823-3ffadce67e.pth"),  # fault: its loading asks for a version of the file
        pytest.param(
            "googlenet", "googlenet-1378be20.pth", marks=pytest.mark.full
        ),  # a file with the auxiliary heads, which we do not build
    ],
)
def test_published_weights_are_loaded(weights_folder: Path, name: str, file: str) -> None:
    extra = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    net = get_model(name, **extra)
    torch.save(net.state_dict(), weights_folder / file)
    model = create_model[f"torchvision/{name}"](3)
    own = model.backbone.body.state_dict()
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in own.items())
    assert {key for key in net.state_dict() if key not in own} == {
        key for key in net.state_dict() if key.startswith(("fc.", "classifier.", "aux"))
    }


@pytest.mark.full
def test_old_files_of_densenets_have_dots_where_todays_have_none(weights_folder: Path) -> None:
    net = get_model("densenet121")
    old = {k.replace("norm1", "norm.1").replace("conv2.", "conv.2."): v for k, v in net.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, weights_folder / "densenet121-a639ec97.pth")
    own = create_model["torchvision/densenet121"](3).backbone.body.state_dict()
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in own.items())


@pytest.mark.full
def test_images_are_normalized_as_the_net_was_trained() -> None:
    """With and without weights alike: a checkpoint must detect the same either way."""
    assert on_meta("resnet18").transform.image_mean == [0.485, 0.456, 0.406]
    assert on_meta("efficientnet_v2_l").transform.image_std == [0.5, 0.5, 0.5]
    assert on_meta("googlenet").transform.image_mean == [0.5, 0.5, 0.5]  # what transform_input=True comes to


class Maps(nn.Module):
    """Outputs of the given shapes per image size."""

    def __init__(self, *cells, channels_last: bool = False) -> None:
        super().__init__()
        self.cells, self.channels_last = cells, channels_last

    def forward(self, images):
        size = images.shape[2:]
        shapes = [tuple(cells(px) for px in size) for cells in self.cells]
        shapes = [(1, *s, 128) if self.channels_last else (1, 128, *s) for s in shapes]
        return [torch.ones(shape, device=images.device) for shape in shapes]


@pytest.mark.parametrize("channels_last", [False, True])
def test_strides_and_layout_are_measured(channels_last: bool) -> None:
    """Fault: 128 channels at stride 4 of 512 px were taken for a side of the map."""
    net = Maps(
        lambda px: px // 4, lambda px: px // 8 - 1, lambda px: px // 7, lambda px: 20, channels_last=channels_last
    )
    assert measure(net, "net", "advice") == [
        FeatureMap(0, 4, 128, channels_last),
        FeatureMap(1, 8, 128, channels_last, exact=False),
    ]


def test_maps_that_do_not_cover_the_image_are_made_to() -> None:
    net = Maps(lambda px: px // 4 - 3, lambda px: px // 8 + 1)
    pyramid = MapPyramid(net, [FeatureMap(0, 4, 128, exact=False), FeatureMap(1, 8, 128, exact=False)])
    pyramid.fpn = nn.Identity()
    cut, rounded_up = pyramid(torch.empty(1, 3, 64, 96)).values()
    assert cut.shape == (1, 128, 16, 24)
    assert rounded_up.shape == (1, 128, 8, 12)
    assert cut[0, 0].sum(0).nonzero().flatten().tolist() == list(range(1, 22))  # of 3 missing columns, 1 on the left


@pytest.mark.parametrize(
    ("strides", "found"), [([16], "16"), ([4, 16], "4, 16"), ([2, 128], "2, 128"), ([], "no power")]
)
def test_maps_without_a_pyramid_are_refused(strides: list[int], found: str) -> None:
    with pytest.raises(ModelError, match=f"net has no maps for a pyramid: their strides are {found}.*: take another"):
        choose([FeatureMap(i, stride, 8) for i, stride in enumerate(strides)], "net", "take another")
