import importlib

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import models.building.pretrained
from models.building.build_options import BuildOptions
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import full_among
from tests.support.batches import batch_of
from tests.support.networks import LARGE, SMALL_HEAD, randomize_norms

PARAMETERS = {  # at 21 classes: with a pyramid, and on the last map alone where there is such a model
    "resnet18": (28_380_856, 40_423_156),
    "resnet34": (38_489_016, None),
    "resnet101": (60_441_784, 184_323_316),
    "resnet152": (76_085_432, 199_966_964),
    "convnext_tiny": (45_148_696, 72_878_868),
    "convnext_small": (66_783_256, 94_513_428),
    "convnext_base": (105_018_360, None),
    "efficientnet_b0": (20_680_948, 84_234_032),
    "efficientnet_b4": (33_878_976, 137_659_900),
    "regnet_y_400mf": (21_066_528, 28_914_748),
    "vgg16": (32_140_472, 43_969_780),
    "mobilevit_xxs": (17_938_664, 19_111_588),
}
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-f82ba261.pth",
    "convnext_tiny": "convnext_tiny-983f1562.pth",
    "convnext_small": "convnext_small-0c510722.pth",
    "convnext_base": "convnext_base-6075fbad.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b4": "efficientnet_b4_rwightman-23ab8bcd.pth",
    "regnet_y_400mf": "regnet_y_400mf-e6988f5f.pth",
    "vgg16": "vgg16_bn-6c64b313.pth",
    "mobilevit_xxs": "mobilevit_xxs.pt",
}
FROZEN = {"resnet18": 2, "resnet34": 2, "resnet101": 2, "resnet152": 2, "vgg16": 2}


def create(name: str, *args, **kwargs):
    return create_model[f"fasterrcnn_{name}_fpn"](*args, **kwargs)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_pyramid_of_five_maps_in_a_smaller_detector(name: str) -> None:
    with torch.device("meta"):
        model = create(name, 21, pretrained=False).eval()
        maps = model.backbone(torch.empty(1, 3, 320, 320))
    with_pyramid, on_last_map = PARAMETERS[name]
    assert sum(p.numel() for p in model.parameters()) == with_pyramid
    if on_last_map:
        with torch.device("meta"):
            twin = create_model[f"fasterrcnn_{name}"](21, pretrained=False)
        assert sum(p.numel() for p in twin.parameters()) == on_last_map > with_pyramid
    spec = importlib.import_module(f"models.fasterrcnn_{name}_fpn").SPEC
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert [tuple(m.shape) for m in maps.values()] == [(1, spec.out_channels, 320 // s, 320 // s) for s in spec.levels]
    assert spec.levels == (4, 8, 16, 32, 64)
    assert model.roi_heads.box_head.fc6.out_features == 1024


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_of_the_body_is_in_one_stage(name: str) -> None:
    with torch.device("meta"):
        model = create(name, 3, pretrained=False)
    assert len(model.stages) == 5
    for key, _ in model.backbone.body.named_parameters(prefix="backbone.body"):
        owners = [stage for stage in model.stages if any(key.startswith(f"{prefix}.") for prefix in stage)]
        assert len(owners) == 1, key


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_weights_freeze_the_first_stages_and_the_norms(name: str) -> None:
    with torch.device("meta"):
        model = create(name, 3, pretrained=False, options=BuildOptions())
    frozen = FROZEN.get(name, 0)
    for i, stage in enumerate(model.stages):
        found = {
            p.requires_grad
            for module_name, module in model.named_modules()
            if any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in stage)
            for p in module.parameters(recurse=False)
            if not isinstance(module, nn.BatchNorm2d)
        }
        assert found == {i >= frozen}
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(p.requires_grad for m in norms for p in m.parameters())
    assert not any(m.training for m in norms)
    assert bool(norms) == (not name.startswith("convnext"))


@pytest.mark.parametrize("name", full_among(PARAMETERS, LARGE))
def test_every_model_trains_and_detects(name: str) -> None:
    torch.manual_seed(0)
    model = create(name, 3, pretrained=False, options=SMALL_HEAD).train()
    losses = model(batch_of([2, 0], (96, 96)))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.inference_mode():
        assert len(model(batch_of([0], (96, 96)))) == 1


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_file_is_asked_for(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.building.pretrained, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(models.building.pretrained, "get_dir", lambda: str(tmp_path))
    with torch.device("meta"), pytest.raises(ModelError, match=FILES[name]):
        create(name, 3)


@pytest.mark.parametrize(
    ("name", "classifier", "nodes"),
    [
        ("resnet18", "resnet18", [f"layer{i}" for i in (1, 2, 3, 4)]),
        ("resnet34", "resnet34", [f"layer{i}" for i in (1, 2, 3, 4)]),
        ("convnext_tiny", "convnext_tiny", [f"features.{i}" for i in (1, 3, 5, 7)]),
        ("efficientnet_b0", "efficientnet_b0", [f"features.{i}" for i in (2, 3, 5, 7)]),
        ("regnet_y_400mf", "regnet_y_400mf", [f"trunk_output.block{i}" for i in (1, 2, 3, 4)]),
        pytest.param("vgg16", "vgg16_bn", [f"features.{i}" for i in (22, 32, 42, 43)], marks=pytest.mark.full),
    ],
)
def test_the_body_gives_the_published_nets_maps(
    name: str, classifier: str, nodes: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also none of the maps is changed in place by the layer behind it."""
    torch.manual_seed(0)
    monkeypatch.setattr(models.building.pretrained, "WEIGHTS_FOLDER", tmp_path)
    net = getattr(torchvision.models, classifier)().eval()
    randomize_norms(net)
    torch.save(net.state_dict(), tmp_path / FILES[name])
    body = create(name, 3, options=SMALL_HEAD).eval().backbone.body
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        own = body(image)
        theirs = create_feature_extractor(net, {node: str(level) for level, node in enumerate(nodes)})(image)
    assert list(own) == ["0", "1", "2", "3"]
    for level, value in own.items():
        torch.testing.assert_close(value, theirs[level], rtol=0, atol=0)


def test_a_convnexts_maps_are_normalized_for_the_pyramid() -> None:
    """Its residual stream may be of any size."""
    torch.manual_seed(0)
    fpn = create("convnext_tiny", 3, pretrained=False, options=SMALL_HEAD).backbone.fpn
    maps = {str(i): torch.randn(1, 96 * 2**i, 16 >> i, 16 >> i) for i in range(4)}
    with torch.inference_mode():
        once = fpn(dict(maps))
        larger = fpn({name: 50 * m + 7 for name, m in maps.items()})
    for name, value in once.items():
        torch.testing.assert_close(larger[name], value, rtol=1e-3, atol=1e-3)
