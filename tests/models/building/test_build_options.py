import pytest
import torch
from torch import nn

from models.building.backbone_spec import BackboneSpec
from models.building.build_options import DETECTORS, NORMS, PUBLISHED, RANDOM, BuildOptions
from models.building.builder import build_fasterrcnn, set_anchors, stages_of
from models.create_fasterrcnn_model import create_from_checkpoint, create_model
from models.rcnn.errors import ModelError
from tests.support.batches import batch_of
from tests.support.networks import NANO, checkpoint_of
from utils.cli import train_options


@pytest.mark.parametrize(
    "options",
    [
        PUBLISHED,
        RANDOM,
        BuildOptions(anchor_sizes=(16, 8.5), aspect_ratios=[1, 0.3], head_width=64, rpn_nms=0.6, nms=0.4, detections=7),
    ],
)
def test_options_go_through_a_checkpoint(options: BuildOptions) -> None:
    assert BuildOptions(**options.as_dict()) == options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"anchor_sizes": ()}, r"anchor_sizes is \(\), expected one to 64 numbers above 0"),
        ({"anchor_sizes": 32}, "anchor_sizes is 32, expected one to 64 numbers above 0"),
        ({"aspect_ratios": (1, -1)}, "aspect_ratios is .* expected one to 64 numbers above 0"),
        ({"aspect_ratios": ("1",)}, "aspect_ratios is .* expected one to 64 numbers above 0"),
        ({"anchor_sizes": (float("nan"),)}, "expected one to 64 numbers above 0"),
        ({"nms": 1.5}, "nms is 1.5, expected a number from 0 to 1"),
        ({"rpn_nms": "0.5"}, "rpn_nms is '0.5', expected a number from 0 to 1"),
        ({"class_agnostic": 1}, "class_agnostic is 1, expected true or false"),
        ({"anchor_sizes": (8.0,) * 65}, "expected one to 64 numbers above 0"),
        ({"head_width": 10**30}, "head_width is 1000.*, expected at most 65536"),
        ({"head_width": 0}, "head_width is 0, expected a whole number of at least 1"),
        ({"detections": 2.0}, "detections is 2.0, expected a whole number of at least 1"),
    ],
)
def test_wrong_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        BuildOptions(**wrong)


def test_flags_and_build_options_know_the_same_values() -> None:
    """Declared twice, because neither may import the other."""
    assert train_options.NORMS == NORMS
    assert train_options.DETECTORS == DETECTORS


def test_every_option_reaches_the_detector_and_its_checkpoint() -> None:
    options = BuildOptions(
        anchor_sizes=(16, 48), aspect_ratios=(1.0, 3.0), head_width=32, rpn_nms=0.6, nms=0.4, detections=7,
        class_agnostic=True,
    )  # fmt: skip
    model = create_model[NANO](4, pretrained=False, options=options)
    for detector in (model, create_from_checkpoint(checkpoint_of(model, classes=4, model_options=options.as_dict()))):
        assert detector.rpn.anchor_generator.sizes == ((16, 48),)
        assert detector.rpn.head.cls_logits.out_channels == 4
        assert detector.roi_heads.box_head.fc7.out_features == 32
        assert (detector.rpn.nms_thresh, detector.roi_heads.nms_thresh) == (0.6, 0.4)
        assert detector.roi_heads.detections_per_img == 7
        assert detector.roi_heads.box_predictor.bbox_pred.out_features == 4
    sum(model.train()(batch_of([2, 0])).values()).backward()
    assert model.roi_heads.box_predictor.bbox_pred.weight.grad.abs().sum() > 0
    model.eval().roi_heads.score_thresh = 0.0
    with torch.inference_mode():
        (found,) = model(batch_of([1]))
    assert 0 < len(found["boxes"]) <= 7


def test_a_class_agnostic_predictor_moves_all_classes_alike() -> None:
    model = create_model[NANO](4, pretrained=False, options=BuildOptions(class_agnostic=True))
    _, deltas = model.roi_heads.box_predictor(torch.randn(5, 128))
    assert deltas.shape == (5, 16)
    assert torch.equal(deltas[:, :4], deltas[:, 12:])


def test_a_pyramid_shares_sizes_out() -> None:
    name = "fasterrcnn_resnet50_fpn"
    sizes = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
    with torch.device("meta"):
        model = create_model[name](3, pretrained=False, options=BuildOptions(anchor_sizes=sizes))
    assert model.rpn.anchor_generator.sizes == ((8, 12), (16, 24), (32, 48), (64, 96), (128, 192))
    with pytest.raises(ModelError, match="anchor_sizes has 3 sizes, and this model has 5 levels to share them"):
        create_model[name](3, pretrained=False, options=BuildOptions(anchor_sizes=(1, 2, 3)))


def test_anchors_of_a_built_detector_are_replaced_number_by_number() -> None:
    model = create_model[NANO](3, pretrained=False)
    set_anchors(model, (5, 10, 20, 40, 80), (0.5, 1, 3))
    assert model.rpn.anchor_generator.sizes == ((5, 10, 20, 40, 80),)
    assert model.build_options.anchor_sizes == (5, 10, 20, 40, 80)
    assert model.train()(batch_of([1]))["loss_objectness"].isfinite()
    with pytest.raises(ModelError, match="3 anchors per cell do not fit this detector, which has 15"):
        set_anchors(model, (5,), (0.5, 1, 3))


def test_stages_of_a_sequential_are_its_layers_with_their_norms() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 8, 1)
    )
    assert stages_of(BackboneSpec(8, (1,)), net) == (("0", "1"), ("3",), ("4",))
    resnet = create_model["fasterrcnn_resnet18"](3, pretrained=False)
    assert resnet.stages == (("backbone.0", "backbone.1"), *((f"backbone.{i}",) for i in (4, 5, 6, 7)))


def test_frozen_stages_are_neither_trained_nor_do_their_norms_change() -> None:
    torch.manual_seed(0)
    model = create_model["fasterrcnn_resnet18"](3, pretrained=False, options=BuildOptions(freeze=2)).train()
    state = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model(batch_of([2, 1])).values()).backward()
    optimizer.step()
    changed = {
        int(key.split(".")[0]) for key, value in model.backbone.state_dict().items() if not value.equal(state[key])
    }
    assert changed == {5, 6, 7}


def test_what_a_model_freezes_is_said_by_its_spec() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1))
    spec = BackboneSpec(out_channels=8, strides=(2,), frozen_stages=1)
    for freeze, trained in ((None, {"1"}), (0, {"0", "1"}), (2, set())):
        net.requires_grad_(True)
        model = build_fasterrcnn(net, spec, 3, BuildOptions(freeze=freeze))
        assert {n.split(".")[0] for n, p in model.backbone.named_parameters() if p.requires_grad} == trained


def test_activation_checkpointing_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ModelError, match="activation_checkpointing: this backbone cannot"):
        create_model[NANO](3, pretrained=False, options=BuildOptions(activation_checkpointing=True))


def test_files_of_the_first_format_say_how_many_layers_are_trained() -> None:
    model = create_model["fasterrcnn_mobilenetv3_large_320_fpn"](3, pretrained=False)
    name = "fasterrcnn_mobilenetv3_large_320_fpn"
    for layers, freeze in ((3, None), (None, 0)):
        saved = {"norm": "frozen", "trainable_layers": layers, "rois_per_image": 512, "proposals": None}
        again = create_from_checkpoint(checkpoint_of(model, name, model_options=saved, format=1))
        assert again.build_options == BuildOptions(freeze=freeze)
    with pytest.raises(ModelError, match="model_options of the checkpoint has trainable_layers"):
        create_from_checkpoint(checkpoint_of(model, name, model_options=saved, format=2))


def test_a_trunk_that_is_all_frozen_is_all_in_eval_mode() -> None:
    """Fault: modules of a frozen trunk that are in no stage stayed in training mode."""
    model = create_model["fasterrcnn_vitdet_tiny"](3, pretrained=False, options=BuildOptions(freeze=13)).train()
    assert not any(m.training for m in model.backbone.net.modules())
    assert model.backbone.simfp_2.training
    assert model.rpn.training
