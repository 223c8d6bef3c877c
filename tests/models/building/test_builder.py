from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models.building.backbone_spec import BackboneSpec
from models.building.build_options import PUBLISHED, RANDOM, BuildOptions, default_options
from models.building.builder import build_fasterrcnn
from models.building.norms import UncountedBatchNorm2d, with_synchronized_batchnorm
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import full_among
from tests.support.batches import batch_of

TRAINED = (  # one of each kind; test_every_model.py has all
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenetv3_large_320_fpn",
    "fasterrcnn_resnet18", "fasterrcnn_squeezenet1_1_small_head", "fasterrcnn_nano", "fasterrcnn_vitdet_tiny",
    "fasterrcnn_mini_darknet_nano_head",
)  # fmt: skip


@pytest.mark.parametrize("name", full_among(TRAINED, TRAINED[:2]))
def test_every_kind_of_model_trains_and_detects(name: str) -> None:
    """Build, train step, images without objects, eval."""
    torch.manual_seed(0)
    options = replace(RANDOM, rois_per_image=64, proposals=100)  # for time
    model = create_model[name](3, pretrained=False, options=options).train()
    losses = model(batch_of([2, 0]))
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    untrained = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert untrained == []
    assert all(loss.isfinite() for loss in model(batch_of([0, 0])).values())
    model.eval()
    with torch.inference_mode():
        detections = model(batch_of([0, 0]))
    assert len(detections) == 2
    assert all(d["boxes"].shape == (len(d["scores"]), 4) for d in detections)


def test_frozen_layers_are_those_before_the_trainable_ones() -> None:
    """Fault of the predecessor: one model froze its own freshly initialized layers."""
    random_start = create_model["fasterrcnn_resnet50_fpn"](3, pretrained=False, options=RANDOM)
    assert all(p.requires_grad for p in random_start.parameters())
    mobilenet = create_model["fasterrcnn_mobilenetv3_large_fpn"](3, pretrained=False, options=PUBLISHED)
    frozen = {int(n.split(".")[2]) for n, p in mobilenet.named_parameters() if not p.requires_grad}
    assert frozen == set(range(7))  # torchvision's, at three trainable layers


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet18_fpn", "fasterrcnn_nano"])
def test_without_options_nothing_is_frozen_over_random_weights(name: str) -> None:
    """Fault: create_model[name](3, pretrained=False) had frozen batch norms over random weights; train.py had not."""
    torch.manual_seed(0)
    model = create_model[name](3, pretrained=False)
    torch.manual_seed(0)
    trains = create_model[name](3, pretrained=False, options=default_options(False))
    assert model.build_options == trains.build_options == RANDOM
    assert all(torch.equal(value, trains.state_dict()[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert model.frozen_modules == ()
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    assert all(module.training for module in model.train().modules())


def test_rois_are_pooled_from_every_declared_map() -> None:
    model = create_model["fasterrcnn_resnet50_fpn"](3, pretrained=False)
    assert model.roi_heads.box_roi_pool.featmap_names == ["0", "1", "2", "3"]
    assert model.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_detector_arguments_override_the_models_own() -> None:
    spec = BackboneSpec(out_channels=8, strides=(2,), detector={"box_score_thresh": 0.2, "rpn_nms_thresh": 0.6})
    net = nn.Conv2d(3, 8, 3, 2, 1)
    model = build_fasterrcnn(net, spec, 3, BuildOptions(proposals=7), box_score_thresh=0.4)
    assert model.roi_heads.score_thresh == 0.4
    assert model.rpn.nms_thresh == 0.6
    assert model.rpn._post_nms_top_n == {"training": 7, "testing": 7}


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ModelError, match="norm is 'layer', expected one of own, frozen, batch, group"):
        BuildOptions(norm="layer")


def test_batch_norm_without_a_counter_is_batch_norm() -> None:
    torch.manual_seed(0)
    own, stock = UncountedBatchNorm2d(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(own(x), stock(x), rtol=0, atol=0)
    torch.testing.assert_close(own.running_var, stock.running_var, rtol=0, atol=0)
    own.load_state_dict(dict(stock.state_dict()))  # the counter of a file that has one is left out
    assert "num_batches_tracked" not in own.state_dict()


@pytest.mark.parametrize("name", full_among(TRAINED[1:3], TRAINED[1:2]))
def test_synchronized_batch_norm_trains_and_keeps_the_keys(name: str) -> None:
    """Fault: torch's SyncBatchNorm asserts a counter of batches, which half of the models have not."""
    model = create_model[name](3, pretrained=False, options=RANDOM)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = list(model.parameters())
    converted = with_synchronized_batchnorm(model).train()
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert all(isinstance(m.num_batches_tracked, torch.Tensor) for m in norms)
    assert all(m.num_batches_tracked.device == m.running_mean.device for m in norms)
    assert list(converted.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in converted.state_dict().items())
    assert all(own is other for own, other in zip(converted.parameters(), parameters, strict=True))
    assert all(loss.isfinite() for loss in converted(batch_of([1, 0])).values())
