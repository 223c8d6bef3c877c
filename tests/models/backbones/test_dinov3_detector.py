import importlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from models.backbones.dinov3 import WEIGHTS, WEIGHTS_PAGE, build
from models.building.build_options import RANDOM, BuildOptions
from models.create_fasterrcnn_model import create_from_checkpoint, create_model
from models.rcnn.errors import ModelError, WeightsNotHereError
from tests.conftest import full_among
from tests.support.batches import batch_of
from tests.support.networks import checkpoint_of, randomized_dinov3

PARAMETERS = {  # name: (today's layout, the predecessor's), at 21 classes
    "convnext_tiny": (45_147_352, 72_880_404),
    "convnext_tiny_multifeat": (42_777_620, 42_777_620),
    "convnext_small": (66_781_912, 94_514_964),
    "convnext_base": (105_016_568, 149_620_020),
    "convnext_large": (213_926_200, 295_809_396),
    "vits16": (39_496_536, 43_383_348),
    "vits16plus": (46_592_856, 50_479_668),
    "vitb16": (105_826_872, 130_729_908),
    "vitl16": (325_556_600, 365_207_732),
    "vith16plus": (865_871_032, 920_860_084),
}
KINDS = ["vits16", "convnext_tiny", "convnext_tiny_multifeat"]


def detector_name(name: str) -> str:
    return f"fasterrcnn_dinov3_{name}"


def network_name(name: str) -> str:
    return name.removesuffix("_multifeat")


def create(name: str, classes: int = 3, **options) -> nn.Module:
    return create_model[detector_name(name)](classes, **options)


@pytest.fixture(scope="module")
def old_models() -> dict[str, nn.Module]:
    """Of each kind one in the layout of the predecessor, with weights that matter, in eval mode."""
    torch.manual_seed(0)
    found = {name: create(name, pretrained=False, layout="legacy").eval() for name in KINDS}
    for model in found.values():
        randomized_dinov3(model.backbone.body)
    return found


def in_an_old_file(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The predecessor's names of a trunk, and of what follows it, are not ours."""
    names = {"backbone.body.": prefix}
    names |= {f"backbone.projections.{i}.": f"backbone.proj_c{i + 3}." for i in range(3)}
    renamed = {}
    for key, value in state.items():
        ours = next((name for name in names if key.startswith(name)), "")
        renamed[names.get(ours, "") + key.removeprefix(ours)] = value
    return renamed


def detections(model: nn.Module) -> list[dict[str, Tensor]]:
    with torch.inference_mode():
        found = model.eval()(batch_of([0, 0], (96, 64)))
    assert all(len(d["boxes"]) for d in found)
    return found


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_every_detector_has_its_parameters_and_freezes_its_trunk(name: str) -> None:
    """The last of its stages is where the trunk ends: what is new in a detector is trained.

    Fault of the predecessor: one froze its own freshly initialized layers.
    """
    module = importlib.import_module(f"models.{detector_name(name)}")
    for layout, count in zip(("pyramid", "legacy"), PARAMETERS[name], strict=True):
        with torch.device("meta"):
            model = create(name, 21, pretrained=False, options=BuildOptions(), layout=layout)
            trunk = build(network_name(name))
        assert sum(p.numel() for p in model.parameters()) == count
        frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
        assert {key.partition(".body.")[2] for key in frozen} == {key for key, _ in trunk.named_parameters()}
        assert all(".body." in key for key in frozen)
        first, *_, last = model.stages
        assert any(part.endswith(("patch_embed", "downsample_layers.0")) for part in first)
        assert any(part.endswith("norm") for part in last)
        assert not model.train().backbone.get_submodule(last[-1].removeprefix("backbone.")).training
        assert model.rpn.training
    assert len(module.SPEC.stages) == module.SPEC.frozen_stages == len(model.stages)


@pytest.mark.parametrize("name", KINDS)
def test_maps_are_as_declared(name: str) -> None:
    with torch.device("meta"):
        model = create(name, pretrained=False)
        maps = model.backbone(torch.empty(1, 3, 128, 192))
    spec = model.spec
    assert [tuple(m.shape) for m in maps.values()] == [(1, 256, 128 // s, 192 // s) for s in spec.levels]
    assert model.roi_heads.box_roi_pool.featmap_names == list(maps)[: len(spec.strides)]
    assert model.rpn.anchor_generator.num_anchors_per_location() == [3 if "multifeat" not in name else 15] * len(maps)


@pytest.mark.parametrize("name", full_among(KINDS, KINDS[1:]))
def test_a_start_from_the_official_file_trains_what_is_new(name: str, weights_folder: Path) -> None:
    torch.manual_seed(0)
    trunk = randomized_dinov3(build(network_name(name)))
    published = trunk.state_dict()
    if name == "convnext_tiny_multifeat":  # a file may have the last norm, which has two names, once
        published = {key: value for key, value in published.items() if not key.startswith("norms.3.")}
    torch.save(published, weights_folder / WEIGHTS[network_name(name)])
    model = create(name, pretrained=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key, value in trunk.state_dict().items():
        ours = next(k for k in before if k.endswith(f"body.{key}"))
        assert torch.equal(before[ours], value)
    sum(model(batch_of([2, 0], (64, 96))).values()).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == (".body." in key), key
        assert parameter.requires_grad == (".body." not in key), key


@pytest.mark.parametrize("name", full_among(KINDS, KINDS[1:]))
@pytest.mark.parametrize("layout", ["pyramid", "legacy"])
def test_unfrozen_every_parameter_gets_a_gradient(name: str, layout: str) -> None:
    options = BuildOptions(freeze=0, activation_checkpointing=True)
    model = create(name, pretrained=False, options=options, layout=layout).train()
    trunk = next(module for key, module in model.named_modules() if key.endswith(".body"))
    calls = []
    block = trunk.blocks[-1] if "vit" in name else trunk.stages[-1][-1]
    block.register_forward_pre_hook(lambda *_: calls.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch_of([2, 0], (64, 64)))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert calls == [True, True]  # computed twice, both times in half precision
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_layers_are_frozen_from_the_image_on() -> None:
    with torch.device("meta"):
        model = create("vits16", pretrained=False, options=BuildOptions(freeze=3))
    frozen = {key.partition(".body.")[2] for key, p in model.named_parameters() if not p.requires_grad}
    assert {"cls_token", "storage_tokens", "mask_token", "patch_embed.proj.weight"} <= frozen
    assert {key.split(".")[1] for key in frozen if key.startswith("blocks.")} == {"0", "1"}


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_a_missing_file_is_named_with_the_place_to_ask_for_it(name: str, weights_folder: Path) -> None:
    with pytest.raises(WeightsNotHereError) as error:
        create(name, pretrained=True)
    for part in (WEIGHTS[network_name(name)], "request that file at", WEIGHTS_PAGE, f"put it into {weights_folder}"):
        assert part in error.value.situation
    assert "--no-pretrained" in str(error.value)


def test_the_file_of_another_network_is_refused(weights_folder: Path) -> None:
    torch.save(build("convnext_tiny").state_dict(), weights_folder / WEIGHTS["vits16"])
    with pytest.raises(ModelError, match="the weights do not fit this model: they lack cls_token"):
        create("vits16", pretrained=True)


def test_a_checkpoint_of_todays_layout_needs_no_weights_file(weights_folder: Path) -> None:
    """Fault of the predecessor: DINOv3 weights were needed even to load a finished detector."""
    for name in KINDS:
        model = create(name, pretrained=False)
        module = importlib.import_module(f"models.{detector_name(name)}")
        assert module.LEGACY.convert(model.state_dict()) is None
        again = create_from_checkpoint(checkpoint_of(model, detector_name(name)))
        assert list(again.state_dict()) == list(model.state_dict())
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
        assert again.spec == module.SPEC


@pytest.mark.parametrize("name", full_among(KINDS, KINDS[1:]))
def test_old_files_load_in_their_layout_and_detect_the_same(old_models, name: str) -> None:
    old = old_models[name]
    state = in_an_old_file(old.state_dict(), "backbone.backbone_model.")
    loaded = create_from_checkpoint({**checkpoint_of(old, detector_name(name)), "model_state_dict": state})
    assert list(loaded.state_dict()) == list(old.state_dict())
    for found, expected in zip(detections(loaded), detections(old), strict=True):
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", KINDS)
def test_a_detector_of_an_old_file_saved_by_us_loads_again(old_models, name: str) -> None:
    old = old_models[name]
    again = create_from_checkpoint(checkpoint_of(old, detector_name(name)), num_classes=7)
    assert again.spec == old.spec
    assert again.roi_heads.box_predictor.cls_score.out_features == 7
    for key, value in old.state_dict().items():
        assert "box_predictor" in key or torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize("prefix", ["backbone.0.dinov3.", "backbone.", "backbone.body."])
@pytest.mark.parametrize("name", KINDS)
def test_the_trunk_of_an_old_file_is_found_under_any_name(old_models, name: str, prefix: str) -> None:
    expected = old_models[name].state_dict()
    renamed = importlib.import_module(f"models.{detector_name(name)}").LEGACY.convert(in_an_old_file(expected, prefix))
    assert list(renamed) == list(expected)
    assert all(torch.equal(renamed[key], expected[key]) for key in expected)


def test_old_vits_pool_every_region_from_the_first_map(old_models) -> None:
    """Fault of the predecessor, which its trained heads expect; today's layout has a map for each size of region."""
    old = old_models["vits16"]
    with torch.inference_mode():
        maps = old.backbone(torch.randn(1, 3, 320, 320))
        boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 90, 60], [0, 0, 320, 320]])
        found = old.roi_heads.box_roi_pool(maps, [boxes], [(320, 320)])
        first = MultiScaleRoIAlign(["0"], 7, 2)({"0": maps["0"]}, [boxes], [(320, 320)])
        expected = old.backbone.body.get_intermediate_layers(torch.zeros(1, 3, 32, 32), [8, 9, 10, 11], reshape=True)
        zeros = old.backbone(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(found, first)
    assert [tuple(m.shape) for m in maps.values()] == [(1, 384, 20, 20)] * 4
    assert all(torch.equal(a, b) for a, b in zip(zeros.values(), expected, strict=True))
    assert old.rpn.anchor_generator.num_anchors_per_location() == [15] * 4


def test_old_convnexts_have_one_map(old_models) -> None:
    old = old_models["convnext_tiny"]
    with torch.inference_mode():
        found = old.backbone(torch.zeros(1, 3, 64, 96))
    assert found.shape == (1, 768, 2, 3)
    assert old.spec.strides == (32,)


@pytest.mark.parametrize("name", KINDS)
def test_files_of_other_models_are_not_taken_for_old_ones(name: str) -> None:
    module = importlib.import_module(f"models.{detector_name(name)}")
    other = dict(create_model["fasterrcnn_nano"](3, pretrained=False).state_dict())
    assert module.LEGACY.convert(other) is None
    assert module.LEGACY.convert({}) is None
    checkpoint = {**checkpoint_of(nn.Linear(1, 1), detector_name(name)), "model_state_dict": other}
    with pytest.raises(ModelError, match="the weights do not fit this model"):
        create_from_checkpoint(checkpoint)


@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_layout_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="layout is 'old', expected one of pyramid, legacy"):
        create(name, pretrained=False, layout="old")


def test_a_random_start_trains_everything() -> None:
    with torch.device("meta"):
        for options in (None, RANDOM):
            assert all(p.requires_grad for p in create("vits16", pretrained=False, options=options).parameters())


def test_losses_of_a_random_start_are_of_the_usual_size() -> None:
    torch.manual_seed(0)
    losses = create("vits16", pretrained=False).train()(batch_of([2, 1], (96, 96)))
    assert losses["loss_classifier"].item() == pytest.approx(math.log(3), rel=0.5)
    assert losses["loss_objectness"].item() == pytest.approx(math.log(2), rel=0.5)
