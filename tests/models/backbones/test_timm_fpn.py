import math
import sys
from pathlib import Path

import pytest
import torch

from models.backbones.timm_fpn import timm_names
from models.building.build_options import RANDOM, BuildOptions
from models.building.norms import batch_norms
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError, WeightsNotHereError
from tests.conftest import full_among
from tests.support.batches import batch_of
from tests.support.networks import check_declarations

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")

TESTED = {  # a small net of each way in which nets give maps, and the strides of the levels that have anchors
    "resnet18": (4, 8, 16, 32, 64),
    "mobilenetv3_small_050": (4, 8, 16, 32, 64),
    "convnext_atto": (4, 8, 16, 32, 64),
    "test_mambaout": (4, 8, 16, 32, 64),  # (B, H, W, C) maps
    "swin_tiny_patch4_window7_224": (4, 8, 16, 32, 64),  # of one size unless told otherwise
    "mvitv2_tiny": (4, 8, 16, 32, 64),  # its maps come from tokens, and timm does not say from which module
    "csatv2": (8, 16, 32, 64, 128),
    "efficientvit_m0": (16, 32, 64, 128, 256),
    "efficientvim_m1": (16, 32, 64, 128, 256),
    "inception_v3": (4, 8, 16, 32, 64),  # its convolutions are not padded
    "legacy_xception": (4, 8, 16, 32, 64),  # its maps come from hooks
    "mobilevitv2_050": (4, 8, 16, 32, 64),  # rounds map sizes up
    "rexnet_100": (4, 8, 16, 32, 64),
    "sedarknet21": (4, 8, 16, 32, 64),
    "tresnet_m": (4, 8, 16, 32, 64),
    "vit_tiny_patch16_224": (4, 8, 16, 32, 64),
    "vit_small_patch14_dinov2": (4, 8, 16, 32, 64),
    "vit_small_patch32_224": (4, 8, 16, 32, 64),
    "xcit_nano_12_p16_224": (4, 8, 16, 32, 64),
}


LARGE = {  # seconds of CPU time each
    "csatv2", "efficientvim_m1", "efficientvit_m0", "inception_v3", "mobilevitv2_050", "mvitv2_tiny", "rexnet_100",
    "swin_tiny_patch4_window7_224", "tresnet_m", "vit_small_patch14_dinov2", "vit_small_patch32_224",
    "xcit_nano_12_p16_224",
}  # fmt: skip


TRAINED = ("mobilenetv3_small_050", "convnext_atto", "test_mambaout", "vit_tiny_patch16_224")


def on_meta(name: str, **options):
    with torch.device("meta"):
        return create_model[f"timm/{name}"](3, pretrained=False, **options)


@pytest.mark.parametrize("name", full_among(TESTED, LARGE))
def test_a_net_gives_what_is_declared(name: str) -> None:
    model = on_meta(name)
    assert model.spec.levels == TESTED[name]
    check_declarations(model)
    model = on_meta(name, options=RANDOM).train()
    sum(m.sum() for m in model.backbone(torch.empty(2, 3, 96, 160, device="meta")).values()).backward()
    assert [n for n, p in model.backbone.named_parameters() if p.requires_grad and p.grad is None] == []


def _smallest_of_each_module() -> list[str]:
    usable, smallest = set(timm_names()), []
    for module in timm.list_modules():
        smallest += sorted((name for name in timm.list_models(module=module) if name in usable), key=len)[:1]
    return smallest


@pytest.mark.slow
@pytest.mark.parametrize("name", _smallest_of_each_module())
def test_a_net_of_every_module_gives_what_is_declared(name: str) -> None:
    check_declarations(on_meta(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(timm.list_models()) - set(timm_names())))
def test_every_net_that_is_not_listed_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"timm/{name} "):
        on_meta(name)


@pytest.mark.parametrize("name", full_among(TRAINED, TRAINED[1:]))
def test_trains_detects_and_is_saved(name: str) -> None:
    torch.manual_seed(0)
    model = create_model[f"timm/{name}"](3, pretrained=False, options=RANDOM).train()
    losses = model(batch_of([2, 0]))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.inference_mode():
        detections = model(batch_of([0, 1], (160, 96)))
    assert all(d["boxes"].shape == (len(d["scores"]), 4) for d in detections)
    other = create_model[f"timm/{name}"](3, pretrained=False, options=BuildOptions())
    other.load_state_dict(model.state_dict(), strict=True)


def test_the_keys_are_timms_whatever_the_options() -> None:
    state = on_meta("resnet18").state_dict()
    assert [k for k in state if k.startswith("backbone.body.")] == [
        f"backbone.body.{k}" for k in timm.create_model("resnet18").state_dict() if not k.startswith("fc.")
    ]
    for norm in ("batch", "frozen"):
        assert list(on_meta("resnet18", options=BuildOptions(norm=norm)).state_dict()) == list(state)
    assert batch_norms(on_meta("resnet18", options=BuildOptions(norm="group")).backbone) == []


def test_maps_are_the_nets_own() -> None:
    model = create_model["timm/test_mambaout"](3, pretrained=False).eval()
    net = timm.create_model("test_mambaout", features_only=True).eval()
    net.load_state_dict(model.backbone.body.state_dict())
    seen = []
    model.backbone.fpn.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].values()))
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        model.backbone(images)
        for own, other in zip(seen, net(images), strict=True):
            torch.testing.assert_close(own, other.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "xcit_nano_12_p16_224"])
def test_the_map_of_a_plain_net_is_its_last_one_normed(name: str) -> None:
    """At the size that the net was trained at, what it says at other sizes is interpolated."""
    model = create_model[f"timm/{name}"](3, pretrained=False).eval()
    net = timm.create_model(name).eval()
    net.load_state_dict(model.backbone.net.model.state_dict(), strict=False)
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        own = model.backbone.net(images)
        tokens = net.forward_features(images)[:, 1:]
    torch.testing.assert_close(own.flatten(2).transpose(1, 2), tokens)


def test_freezing_goes_on_from_the_image() -> None:
    frozen = {
        n for n, p in on_meta("resnet18", options=BuildOptions(freeze=2)).named_parameters() if not p.requires_grad
    }
    assert {n.split(".")[2] for n in frozen if ".bn" not in n and "downsample.1" not in n} == {"conv1", "layer1"}
    stages = on_meta("vit_tiny_patch16_224").spec.stages
    assert len(stages) == 12
    assert set(stages[0]) == {f"net.model.{n}" for n in ("cls_token", "pos_embed", "patch_embed", "blocks.0")}
    assert stages[5] == ("net.model.blocks.5",)
    assert len(on_meta("mvitv2_tiny").spec.stages) == 1  # and none is frozen unasked
    assert on_meta("mvitv2_tiny").spec.frozen_stages == 0


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        options = BuildOptions(freeze=0, activation_checkpointing=recompute)
        backbone = create_model[f"timm/{name}"](3, pretrained=False, options=options).eval().backbone
        backbone.body.train() if hasattr(backbone, "body") else backbone.train()
        for norm in batch_norms(backbone):
            backbone.get_submodule(norm).eval()
        sum(m.square().mean() for m in backbone(torch.rand(1, 3, 64, 96)).values()).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.requires_grad])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_a_net_that_cannot_recompute_says_so() -> None:
    with pytest.raises(ModelError, match=r"activation_checkpointing: .*leave --activation-checkpointing out"):
        on_meta("hrnet_w18_small", options=BuildOptions(activation_checkpointing=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mixer_s32_224",
            r"timm/mixer_s32_224 cannot run on images of 512 x 640 px .*: take another net, such as timm/",
        ),
        ("halonet26t", r"timm/halonet26t cannot run on images of 512 x 640 px .*: take another"),
        ("test_maxvit", r"timm/test_maxvit cannot run on images of 512 x 640 px .*: take another"),
        ("crossvit_tiny_240", r"timm/crossvit_tiny_240 has no maps for a pyramid: their strides are no power of two"),
        ("convmixer_768_32", r"timm/convmixer_768_32 has no maps for a pyramid: their strides are no power of two"),
        ("xcit_nano_12_p8_224", r"timm/xcit_nano_12_p8_224 has no maps for a pyramid: their strides are 8, expected"),
        ("resnet19", r"unknown model 'timm/resnet19': did you mean timm/resnet1"),
        ("resnet18.a1_in2k", r"unknown model 'timm/resnet18.a1_in2k': did you mean timm/resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", r"unknown model 'timm/hf-hub:timm/resnet18'"),
        ("", r"unknown model 'timm/'"),
    ],
)
def test_a_net_that_cannot_be_taken(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model[f"timm/{name}"](3, pretrained=False)


def test_names() -> None:
    assert {"resnet18", "resnet34"} <= set(timm_names("resnet*"))
    assert set(TESTED) <= set(timm_names())
    assert len(timm_names()) > 1000
    assert not [name for name in timm_names() if name.startswith(("mixer_", "maxvit_", "crossvit_"))]


def test_without_timm_only_its_nets_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"timm/\.\.\. needs the package timm: pip install timm"):
        create_model["timm/resnet18"](3)
    with pytest.raises(ModelError, match="pip install timm"):
        timm_names()
    create_model["torchvision/squeezenet1_1"](3, pretrained=False)


@pytest.mark.full
def test_images_are_normalized_as_the_net_was_trained() -> None:
    """With and without weights alike: a checkpoint must detect the same either way."""
    for name in ("resnet18", "vit_tiny_patch16_224"):
        config = timm.get_pretrained_cfg(name)
        assert tuple(on_meta(name).transform.image_mean) == config.mean
        assert tuple(on_meta(name).transform.image_std) == config.std
    assert on_meta("vit_tiny_patch16_224").transform.image_mean == [0.5, 0.5, 0.5]


class TestWeights:
    """Of nets with and without a tag, from safetensors and torch files, by timm's own conversions."""

    def save(self, folder: Path, name: str, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        state = timm.create_model(name).state_dict() | changes
        state = {key: value for key, value in state.items() if value is not None}
        config = timm.get_pretrained_cfg(name)
        safetensors.save_file(state, folder / f"{config.architecture}.{config.tag}.safetensors")
        return state

    @pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "test_efficientnet", "test_convnext"])
    def test_from_the_folder(self, weights_folder: Path, name: str) -> None:
        state = self.save(weights_folder, name)
        own = create_model[f"timm/{name}"](3).backbone.body.state_dict()
        flat = {
            k.replace(".", "_"): value for k, value in state.items()
        }  # timm writes stages_0 where a net had stages.0
        assert all(torch.equal(value, flat[k.replace(".", "_")]) for k, value in own.items())

    @pytest.mark.full
    def test_a_plain_net_with_patches_of_another_size(self, weights_folder: Path) -> None:
        name = "vit_small_patch14_dinov2"
        state = self.save(weights_folder, name)
        own = create_model[f"timm/{name}"](3).backbone.net.model.state_dict()
        assert own["patch_embed.proj.weight"].shape[2:] == (16, 16)
        assert torch.equal(own["blocks.3.mlp.fc1.weight"], state["blocks.3.mlp.fc1.weight"])
        assert own["pos_embed"].shape[1] == 1 + math.prod(2 * (518 // 16,))

    def test_from_the_cache_of_the_hub(self, weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        state = self.save(weights_folder, "test_resnet")
        file = next(weights_folder.iterdir()).rename(weights_folder / "elsewhere.safetensors")
        asked = []
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: asked.append(a) or str(file))
        own = create_model["timm/test_resnet"](3).backbone.body.state_dict()
        assert torch.equal(own["conv1.0.weight"], state["conv1.0.weight"])
        assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]

    def test_without_network(self, weights_folder: Path) -> None:
        with pytest.raises(WeightsNotHereError) as error:
            create_model["timm/resnet18.a1_in1k"](3)
        for part in (
            "https://huggingface.co/timm/resnet18.a1_in1k/",
            f"put it into {weights_folder} as resnet18.a1_in1k.safetensors, or",
            "--no-pretrained",
        ):
            assert part in str(error.value)

    def test_of_nets_that_are_not_on_the_hub(self, weights_folder: Path) -> None:
        with pytest.raises(WeightsNotHereError, match=r"seresnet18-4bb0ce65\.pth .*https://github.com/"):
            create_model["timm/legacy_seresnet18"](3)
        state = timm.create_model("legacy_seresnet18").state_dict()
        torch.save(state, weights_folder / "seresnet18-4bb0ce65.pth")
        own = create_model["timm/legacy_seresnet18"](3).backbone.body.state_dict()
        assert torch.equal(own["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])

    def test_of_nets_that_have_none(self) -> None:
        with pytest.raises(ModelError, match=r"timm/seresnet18 has no published weights: .* --no-pretrained"):
            create_model["timm/seresnet18"](3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"layer2.0.conv1.weight": None}, r"they lack layer2\.0\.conv1\.weight"),
            ({"layer2.0.conv1.weight": torch.ones(1, 2, 3, 3)}, r"size mismatch for layer2\.0\.conv1\.weight"),
        ],
    )
    def test_that_do_not_fit(self, weights_folder: Path, changes, message: str) -> None:
        """Fault of timm: it says nothing of what a file lacks."""
        self.save(weights_folder, "test_resnet", **changes)
        with pytest.raises(
            ModelError, match=r"(?s)test_resnet\.r160_in1k\.safetensors: the weights do not fit.*" + message
        ):
            create_model["timm/test_resnet"](3)

    def test_that_are_damaged(self, weights_folder: Path) -> None:
        (weights_folder / "test_resnet.r160_in1k.safetensors").write_bytes(b"half")
        with pytest.raises(ModelError, match=r"test_resnet\.r160_in1k\.safetensors: "):
            create_model["timm/test_resnet"](3)

    def test_that_would_run_code(self, weights_folder: Path) -> None:
        torch.save({"conv1.weight": Path}, weights_folder / "seresnet18-4bb0ce65.pth")
        with pytest.raises(ModelError, match=r"seresnet18-4bb0ce65\.pth: not a weights file, or damaged"):
            create_model["timm/legacy_seresnet18"](3)


@pytest.mark.full
def test_a_neck_in_the_place_of_the_last_norm_gives_the_channels() -> None:
    """Fault: SAM's ViTs end in a neck of 256 channels, and the pyramid on them expected 768."""
    with torch.device("meta"):
        model = create_model["timm/samvit_base_patch16"](3, pretrained=False)
        maps = model.backbone(torch.empty(1, 3, 96, 128))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
