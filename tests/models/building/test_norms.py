import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models.building.backbone_spec import BackboneSpec
from models.building.build_options import BuildOptions
from models.building.builder import build_fasterrcnn
from models.building.norms import batch_norms, replace_by_group_norms
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import full_among
from tests.support.batches import batch_of


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 32, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))


def detector(**options):
    return build_fasterrcnn(net(), BackboneSpec(out_channels=8, strides=(32,)), 3, BuildOptions(**options))


def test_frozen_norms_keep_statistics_weights_and_keys() -> None:
    torch.manual_seed(0)
    trained, frozen = detector(), detector(norm="frozen")
    assert list(trained.state_dict()) == list(frozen.state_dict())
    for model, changes in ((trained, True), (frozen, False)):
        before = model.backbone[1].running_mean.clone()
        sum(model.train()(batch_of([2, 1])).values()).backward()
        assert (model.backbone[1].running_mean != before).any() == changes
        assert (model.backbone[1].weight.grad is not None) == changes
        assert model.backbone[0].weight.grad is not None


def test_frozen_norms_stay_so_after_evaluation() -> None:
    model = detector(norm="frozen").eval().train()
    assert not model.backbone[1].training
    assert model.backbone[0].training


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet18",
        *full_among(OTHERS := ["fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenetv3_large_fpn"], OTHERS),
    ],
)
def test_group_norms_train(name: str) -> None:
    torch.manual_seed(0)
    options = BuildOptions(norm="group", freeze=0)
    model = create_model[name](3, pretrained=False, options=options).train()
    assert batch_norms(model.backbone) == []
    assert any(isinstance(m, nn.GroupNorm) for m in model.backbone.modules())
    losses = model(batch_of([2], (64, 64)))  # one image: batch norm could not
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_group_norms_take_over_scale_shift_and_activation() -> None:
    timm = pytest.importorskip("timm")
    backbone = nn.ModuleDict(
        {"plain": nn.BatchNorm2d(48), "frozen": FrozenBatchNorm2d(7), "act": timm.layers.BatchNormAct2d(16)}
    )
    with torch.no_grad():
        backbone["act"].weight.uniform_(-1, 1)
    weight = backbone["act"].weight.clone()
    replace_by_group_norms(backbone)
    assert [backbone[name].num_groups for name in ("plain", "frozen", "act")] == [16, 1, 16]
    assert torch.equal(backbone["act"].weight, weight)
    assert backbone["act"](torch.randn(2, 16, 4, 4)).min() >= 0


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_a_backbone_without_batch_norm_says_so(norm: str) -> None:
    with pytest.raises(ModelError, match=f"norm is '{norm}', and this backbone has no batch norms"):
        create_model["fasterrcnn_nano"](3, pretrained=False, options=BuildOptions(norm=norm))
