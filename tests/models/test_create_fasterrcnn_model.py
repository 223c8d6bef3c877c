import subprocess
import sys

import pytest
import torch

from models.building.build_options import BuildOptions
from models.create_fasterrcnn_model import (
    create_coco_model,
    create_from_checkpoint,
    create_model,
    open_detector,
)
from models.rcnn.errors import ModelError
from tests.conftest import ROOT, full_among
from tests.support.networks import NANO, PREDECESSOR, checkpoint_of

PARAMETERS = {  # at 21 classes, as the predecessor had them
    "fasterrcnn_convnext_small": 94_513_428,
    "fasterrcnn_convnext_tiny": 72_878_868,
    "fasterrcnn_custom_resnet": 17_494_100,
    "fasterrcnn_darknet": 84_456_692,
    "fasterrcnn_efficientnet_b0": 84_234_032,
    "fasterrcnn_efficientnet_b4": 137_659_900,
    "fasterrcnn_mbv3_large": 60_666_596,
    "fasterrcnn_mbv3_small_nano_head": 1_873_364,
    "fasterrcnn_mini_darknet": 8_968_348,
    "fasterrcnn_mini_darknet_nano_head": 2_220_572,
    "fasterrcnn_mini_squeezenet1_1_small_head": 4_247_892,
    "fasterrcnn_mini_squeezenet1_1_tiny_head": 2_418_260,
    "fasterrcnn_mobilenetv3_large_320_fpn": 19_027_604,
    "fasterrcnn_mobilenetv3_large_fpn": 19_027_604,
    "fasterrcnn_mobilevit_xxs": 19_111_588,
    "fasterrcnn_nano": 3_017_396,
    "fasterrcnn_regnet_y_400mf": 28_914_748,
    "fasterrcnn_resnet101": 184_323_316,
    "fasterrcnn_resnet152": 199_966_964,
    "fasterrcnn_resnet18": 40_423_156,
    "fasterrcnn_resnet50_fpn": 41_396_536,
    "fasterrcnn_resnet50_fpn_v2": 43_353_528,
    "fasterrcnn_squeezenet1_0": 29_982_068,
    "fasterrcnn_squeezenet1_1": 29_969_140,
    "fasterrcnn_squeezenet1_1_small_head": 16_282_868,
    "fasterrcnn_vgg16": 43_969_780,
    "fasterrcnn_vitdet": 106_046_264,
    "fasterrcnn_vitdet_tiny": 22_878_632,
}


def test_every_name_of_the_predecessor_is_known() -> None:
    dinov3 = ("convnext_tiny", "convnext_tiny_multifeat", "convnext_small", "convnext_base", "convnext_large")
    dinov3 += ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus")
    expected = {*PARAMETERS, *(f"fasterrcnn_dinov3_{name}" for name in dinov3)}
    assert len(expected) == 38
    assert expected <= set(create_model)
    assert len(create_model) == len(list(create_model))


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_keys_shapes_order_and_parameters_are_the_predecessors(name: str) -> None:
    with torch.device("meta"):
        model = create_model[name](21, pretrained=False, options=BuildOptions())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == PREDECESSOR[name]
    assert list(model.state_dict()) == list(PREDECESSOR[name])
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", full_among(sorted(PARAMETERS), sorted(PARAMETERS)[::2]))
def test_a_trainable_norm_has_the_same_keys(name: str) -> None:
    with torch.device("meta"):
        model = create_model[name](21, pretrained=False, options=BuildOptions(norm="batch"))
        published = create_model[name](21, pretrained=False, options=BuildOptions())
    assert list(model.state_dict()) == list(PREDECESSOR[name])
    model.load_state_dict(published.state_dict())


def test_listing_imports_no_model() -> None:
    """Fault of the predecessor: one missing optional package broke every model."""
    code = (
        "import sys; from models.create_fasterrcnn_model import create_model; list(create_model); "
        "sys.exit('torch' in sys.modules or any(m.startswith('models.fasterrcnn_') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fasterrcnn_resnet81", r"unknown model 'fasterrcnn_resnet81': did you mean fasterrcnn_resnet18\?"),
        ("yolo", "unknown model 'yolo': known: fasterrcnn_"),
        ("builder", "unknown model 'builder'"),
    ],
)
def test_unknown_name_is_refused(name: str, message: str) -> None:
    """Fault of the predecessor: unknown model names silently built another model."""
    assert name not in create_model
    with pytest.raises(ModelError, match=message):
        create_model[name]


def test_coco_model_needs_published_weights() -> None:
    with pytest.raises(ModelError, match=r"fasterrcnn_nano has no published COCO weights: pass --weights .* or one of"):
        create_coco_model(NANO)


def test_checkpoint_gives_the_same_network_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault of the predecessor: a checkpoint could not be loaded offline, because weights were fetched first."""
    import models.building.pretrained

    def fail(*_):
        raise AssertionError("fetched weights")

    monkeypatch.setattr(models.building.pretrained, "weights_file", fail)
    name = "fasterrcnn_mobilenetv3_large_320_fpn"
    model = create_model[name](3, pretrained=False)
    opened = open_detector(checkpoint_of(model, name), None)
    for key, value in model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[key], value)
    assert opened.class_names == ("__background__", "c1", "c2")


def test_checkpoint_builds_with_its_own_options() -> None:
    options = BuildOptions(norm="batch", rois_per_image=64, proposals=300)
    model = create_model[NANO](3, pretrained=False, options=options)
    again = create_from_checkpoint(checkpoint_of(model, model_options=options.as_dict()))
    assert again.build_options == options
    assert again.roi_heads.fg_bg_sampler.batch_size_per_image == 64
    assert again.rpn._post_nms_top_n == {"training": 300, "testing": 300}


def test_a_predecessors_checkpoint_is_built_on_published_weights_norms() -> None:
    name = "fasterrcnn_resnet50_fpn"
    model = create_model[name](3, pretrained=False)
    again = create_from_checkpoint(checkpoint_of(model, name))
    assert again.build_options == BuildOptions()
    assert again.backbone.body.bn1.eps == 0.0
    frozen = [n for n, p in again.named_parameters() if not p.requires_grad]
    assert {n.split(".")[2] for n in frozen} == {"conv1", "layer1"}


def test_other_classes_get_a_new_predictor_and_keep_the_rest() -> None:
    """Fault of the predecessor: resuming replaced the trained box head by a random one."""
    model = create_model[NANO](3, pretrained=False)
    other = create_from_checkpoint(checkpoint_of(model), num_classes=7)
    assert other.roi_heads.box_predictor.cls_score.out_features == 7
    assert torch.equal(other.roi_heads.box_head.fc6.weight, model.roi_heads.box_head.fc6.weight)
    same = create_from_checkpoint(checkpoint_of(model), num_classes=3)
    assert torch.equal(same.roi_heads.box_predictor.cls_score.weight, model.roi_heads.box_predictor.cls_score.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("backbone.0.bias"), r"they lack backbone\.0\.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "they also have extra"),
        (lambda state: state.update({"backbone.0.bias": torch.ones(1)}), r"another shape for backbone\.0\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message) -> None:
    state = dict(create_model[NANO](3, pretrained=False).state_dict())
    change(state)
    checkpoint = {"model_name": NANO, "model_state_dict": state, "data": {"CLASSES": ["__background__", "a", "b"]}}
    with pytest.raises(ModelError, match=message):
        create_from_checkpoint(checkpoint)


def test_a_wrong_model_name_beside_a_checkpoint() -> None:
    checkpoint = checkpoint_of(create_model[NANO](3, pretrained=False))
    assert open_detector(checkpoint, NANO).name == NANO
    with pytest.raises(ModelError, match="is not the model of the checkpoint, which is fasterrcnn_nano"):
        open_detector(checkpoint, "fasterrcnn_resnet18")
    with pytest.raises(ModelError, match="did you mean fasterrcnn_nano"):
        open_detector(checkpoint, "fasterrcnn_nana")


def test_a_file_that_does_not_say_its_size_gets_torchvisions() -> None:
    model = create_model[NANO](3, pretrained=False)
    opened = open_detector(checkpoint_of(model), None)
    assert not opened.size_is_known
    assert opened.size_rule == {"size": 800, "max_size": 1333, "square": False}
    rule = {"size": 320, "max_size": 1333, "square": True}
    assert open_detector(checkpoint_of(model, size_rule=rule), None).size_rule == rule


def test_the_default_model_does_not_contradict_a_checkpoint() -> None:
    opened = open_detector(checkpoint_of(create_model[NANO](3, pretrained=False)), None, default="fasterrcnn_resnet18")
    assert opened.name == NANO


@pytest.mark.full
@pytest.mark.parametrize("name", ["fasterrcnn_resnet18", "torchvision/resnet18"])
def test_the_first_model_of_a_process_may_be_built_without_values(name: str) -> None:
    """Fault: torchvision cannot be imported inside `with torch.device(...)`, where the registry imported it."""
    code = (
        "import torch; from models.create_fasterrcnn_model import create_model\n"
        f"with torch.device('meta'): print(next(create_model['{name}'](3, pretrained=False).parameters()).device)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "meta", done.stderr


def test_a_flag_that_does_not_fit_the_weights_is_named() -> None:
    checkpoint = checkpoint_of(create_model[NANO](3, pretrained=False))
    with pytest.raises(
        ModelError, match=r"another shape for roi_heads.*: head_width may not fit a finished model: leave"
    ):
        create_from_checkpoint(checkpoint, head_width=64, nms=0.4)


def test_one_number_said_a_billion_times_is_refused() -> None:
    """Fault: a small file with an expanded tensor asked for 512 GB."""
    checkpoint = checkpoint_of(create_model[NANO](3, pretrained=False))
    state = dict(checkpoint["model_state_dict"])
    state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(1).expand(10**9)
    with pytest.raises(ModelError, match=r"cls_score\.bias of more values than the file holds"):
        create_from_checkpoint({**checkpoint, "model_state_dict": state})
