import importlib
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torchvision.models
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

import models.building.pretrained
from models.backbones.custom_resnet import ResidualBlock
from models.backbones.torchvision_nets import regnet_y_400mf
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn.errors import ModelError
from tests.conftest import full_among
from tests.support.batches import batch_of
from tests.support.networks import LARGE, PREDECESSOR, SMALL_HEAD, randomize_norms

TABLE = {  # parameters at 21 classes and of the backbone; channels, side of the map of a 320 px image, and box head
    "custom_resnet": (17_494_100, 2_881_440, 256, 5, 1024),
    "darknet": (84_456_692, 22_403_136, 1024, 10, 1024),
    "mini_darknet": (8_968_348, 1_230_312, 128, 10, 1024),
    "mini_darknet_nano_head": (2_220_572, 1_230_312, 128, 10, 128),
    "squeezenet1_0": (29_982_068, 735_424, 512, 19, 1024),
    "squeezenet1_1": (29_969_140, 722_496, 512, 19, 1024),
    "mini_squeezenet1_1_small_head": (4_247_892, 562_336, 128, 19, 512),
    "mini_squeezenet1_1_tiny_head": (2_418_260, 562_336, 128, 19, 256),
    "mbv3_small_nano_head": (1_873_364, 883_104, 128, 10, 128),
    "mbv3_large": (60_666_596, 2_971_952, 960, 10, 1024),
    "efficientnet_b0": (84_234_032, 4_007_548, 1280, 10, 1024),
    "efficientnet_b4": (137_659_900, 17_548_616, 1792, 10, 1024),
    "resnet101": (184_323_316, 42_500_160, 2048, 10, 1024),
    "resnet152": (199_966_964, 58_143_808, 2048, 10, 1024),
    "convnext_tiny": (72_878_868, 27_818_592, 768, 10, 1024),
    "convnext_small": (94_513_428, 49_453_152, 768, 10, 1024),
    "mobilevit_xxs": (19_111_588, 951_024, 320, 10, 1024),
    "regnet_y_400mf": (28_914_748, 3_903_144, 440, 10, 1024),
    "vgg16": (43_969_780, 14_723_136, 512, 10, 1024),
}
FILES = {
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "mini_squeezenet1_1_small_head": "squeezenet1_1-b8a52dc0.pth",
    "mini_squeezenet1_1_tiny_head": "squeezenet1_1-b8a52dc0.pth",
    "mbv3_small_nano_head": "mobilenet_v3_small-047dcff4.pth",
    "mbv3_large": "mobilenet_v3_large-5c1a4163.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b4": "efficientnet_b4_rwightman-23ab8bcd.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-f82ba261.pth",
    "convnext_tiny": "convnext_tiny-983f1562.pth",
    "convnext_small": "convnext_small-0c510722.pth",
    "mobilevit_xxs": "mobilevit_xxs.pt",
    "regnet_y_400mf": "regnet_y_400mf-e6988f5f.pth",
    "vgg16": "vgg16_bn-6c64b313.pth",
}


def module_of(name: str):
    return importlib.import_module(f"models.fasterrcnn_{name}")


@pytest.mark.parametrize("name", TABLE)
def test_keys_order_counts_and_maps_are_the_predecessors(name: str) -> None:
    parameters, of_backbone, channels, side, head = TABLE[name]
    with torch.device("meta"):
        model = create_model[f"fasterrcnn_{name}"](21, pretrained=False).eval()
        feature_map = model.backbone(torch.empty(1, 3, 320, 320))
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == PREDECESSOR[f"fasterrcnn_{name}"]
    assert list(state) == list(PREDECESSOR[f"fasterrcnn_{name}"])
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.backbone.parameters()) == of_backbone
    assert feature_map.shape == (1, channels, side, side)
    spec = module_of(name).SPEC
    assert (spec.out_channels, spec.head_width) == (channels, head)
    assert spec.strides == (16 if side == 19 else 320 // side,)  # SqueezeNets lose a row without padding


@pytest.mark.parametrize("name", full_among(TABLE, LARGE))
def test_every_model_trains_and_detects(name: str) -> None:
    torch.manual_seed(0)
    model = create_model[f"fasterrcnn_{name}"](3, pretrained=False, options=SMALL_HEAD).train()
    losses = model(batch_of([2, 0], (96, 96)))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.inference_mode():
        assert len(model(batch_of([0], (96, 96)))) == 1


@pytest.mark.parametrize("name", ["custom_resnet", "mini_squeezenet1_1_tiny_head", "mobilevit_xxs"])
def test_boxes_are_those_of_torchvisions_detector_on_the_same_backbone(name: str) -> None:
    """Where maps do not divide the image, too: torchvision finds the stride out, we declare it."""
    torch.manual_seed(0)
    own = create_model[f"fasterrcnn_{name}"](3, pretrained=False, options=replace(RANDOM, head_width=64)).eval()
    for layer in (own.rpn.head.cls_logits, own.roi_heads.box_predictor.cls_score):
        nn.init.normal_(layer.weight, std=0.5)  # scores that differ
    backbone = deepcopy(own.backbone)
    stock = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=TwoMLPHead(backbone.out_channels * 49, 64),
        box_predictor=FastRCNNPredictor(64, 3),
        min_size=288,
        max_size=352,
    ).eval()
    stock.load_state_dict(own.state_dict())
    batch = batch_of([0], (288, 352))
    with torch.inference_mode():
        (mine,), (theirs,) = own(batch), stock([batch.images[0].permute(2, 0, 1) / 255])
    assert len(mine["boxes"]) == len(theirs["boxes"]) > 20
    torch.testing.assert_close(mine["scores"], theirs["scores"], rtol=0, atol=1e-4)
    distance = torch.cdist(mine["boxes"], theirs["boxes"], p=torch.inf)  # equal scores may come in another order
    assert distance.min(1).values.max() < 0.05  # px
    assert distance.min(0).values.max() < 0.05


@pytest.mark.parametrize("name", FILES)
def test_the_published_file_is_asked_for(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network the message names it; the network itself may be without memory, it is not filled."""
    monkeypatch.setattr(models.building.pretrained, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(models.building.pretrained, "get_dir", lambda: str(tmp_path))
    with torch.device("meta"), pytest.raises(ModelError, match=FILES[name]):
        create_model[f"fasterrcnn_{name}"](3)


@pytest.mark.parametrize("name", sorted(set(TABLE) - set(FILES)))
def test_models_without_published_weights_need_no_network(name: str) -> None:
    with torch.device("meta"):
        create_model[f"fasterrcnn_{name}"](3, pretrained=True)


@pytest.fixture
def published(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Saves a state dict under the name of a published file."""
    monkeypatch.setattr(models.building.pretrained, "WEIGHTS_FOLDER", tmp_path)

    def save(state: dict, file: str) -> None:
        torch.save(state, tmp_path / file)

    return save


@pytest.mark.parametrize(
    ("name", "classifier", "cut"),
    [
        ("squeezenet1_0", "squeezenet1_0", lambda net: net.features),
        ("mbv3_large", "mobilenet_v3_large", lambda net: net.features),
        ("efficientnet_b0", "efficientnet_b0", lambda net: net.features),
        ("regnet_y_400mf", "regnet_y_400mf", lambda net: nn.Sequential(net.stem, net.trunk_output)),
    ],
)
def test_published_weights_give_the_classifiers_last_map(published, name: str, classifier: str, cut) -> None:
    net = getattr(torchvision.models, classifier)().eval()
    randomize_norms(net)
    published(net.state_dict(), FILES[name])
    model = create_model[f"fasterrcnn_{name}"](3, options=SMALL_HEAD).eval()
    image = torch.rand(1, 3, 70, 90)
    with torch.inference_mode():
        torch.testing.assert_close(model.backbone(image), cut(net)(image), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "classifier", "last"),
    [("mini_squeezenet1_1_tiny_head", "squeezenet1_1", "12"), ("mbv3_small_nano_head", "mobilenet_v3_small", "12")],
)
def test_only_the_declared_last_layer_is_new(published, name: str, classifier: str, last: str) -> None:
    """Weights are matched by name against the whole published network, never picked by what happens to fit."""
    net = getattr(torchvision.models, classifier)()
    randomize_norms(net)
    published(net.state_dict(), FILES[name])
    backbone = create_model[f"fasterrcnn_{name}"](3).backbone
    own, theirs = backbone.state_dict(), net.features.state_dict()
    assert {key.split(".")[0] for key in own if own[key].shape != theirs[key].shape} == {last}
    kept = [key for key in own if not key.startswith(f"{last}.")]
    assert all(torch.equal(own[key], theirs[key]) for key in kept)
    state = net.state_dict()
    del state[f"features.{kept[0]}"]
    published(state, FILES[name])
    with pytest.raises(ModelError, match=rf"they lack features\.{kept[0]}"):
        create_model[f"fasterrcnn_{name}"](3)


def test_new_last_layers_are_of_their_networks_kind() -> None:
    last = create_model["fasterrcnn_mbv3_small_nano_head"](3, pretrained=False).backbone[-1]
    _, norm, act = last
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    assert isinstance(act, nn.Hardswish)
    fire = create_model["fasterrcnn_mini_squeezenet1_1_tiny_head"](3, pretrained=False).backbone[-1]
    assert isinstance(fire, torchvision.models.squeezenet.Fire)
    assert 1.2 < fire.expand3x3.weight.std() * (32 * 9) ** 0.5 < 1.6  # He's sqrt(2), torch's own would be 0.58


@pytest.mark.parametrize("name", ["darknet", "mini_darknet"])
def test_darknet_has_leaky_relus_but_before_its_last_pool(name: str) -> None:
    with torch.device("meta"):
        backbone = create_model[f"fasterrcnn_{name}"](3, pretrained=False).backbone
    pools = [i for i, m in enumerate(backbone) if isinstance(m, nn.MaxPool2d)]
    assert [m.kernel_size for m in backbone if isinstance(m, nn.Conv2d)][:2] == [(7, 7), (3, 3)]
    assert isinstance(backbone[pools[-1] - 1], nn.Conv2d)
    assert [type(backbone[i - 1]) for i in pools[:-1]] == [nn.LeakyReLU] * 3
    assert sum(isinstance(m, nn.Conv2d) for m in backbone) == 20
    assert {m.negative_slope for m in backbone if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_custom_resnet_halves_the_map_twice_before_its_stages() -> None:
    """Shapes do not tell this stem from a convolution of stride 4."""
    backbone = create_model["fasterrcnn_custom_resnet"](3, pretrained=False).backbone
    convolution, _, act, pool = backbone[0]
    assert (convolution.stride, convolution.padding) == ((2, 2), (3, 3))
    assert isinstance(act, nn.ReLU)
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert [[block.conv1.stride[0] for block in stage] for stage in backbone[1:]] == [[2, 1]] * 4


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block_is_the_sum_of_its_branches(stride: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, stride).eval()
    randomize_norms(block)
    x = torch.randn(1, 4, 9, 9)

    def conv_norm(y, conv, norm):
        y = F.conv2d(y, conv.weight, conv.bias, conv.stride, padding=1)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    y = conv_norm(conv_norm(x, block.conv1, block.bn1).clamp(min=0), block.conv2, block.bn2)
    shortcut = F.conv2d(x[:, :, ::stride, ::stride], block.conv3.weight, block.conv3.bias)
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), rtol=1e-5, atol=1e-5)


def test_regnet_is_torchvisions_on_every_device() -> None:
    """Fault: torchvision computes the widths with tensors, and so could not build its RegNets on the meta device."""
    torch.manual_seed(0)
    stock = torchvision.models.regnet_y_400mf().eval()
    with torch.device("meta"):
        own = regnet_y_400mf()
    assert list(own.state_dict()) == list(stock.state_dict())
    own = own.to_empty(device="cpu").eval()
    own.load_state_dict(stock.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(own(image), stock(image), rtol=0, atol=0)


def test_a_regnets_trunk_is_frozen_part_by_part() -> None:
    """Its backbone has two children only, and the second is nearly all of it."""
    options = replace(SMALL_HEAD, freeze=3)
    backbone = create_model["fasterrcnn_regnet_y_400mf"](3, pretrained=False, options=options).backbone
    stem, trunk = backbone
    parts = [stem, *trunk.children()]
    assert [{p.requires_grad for p in part.parameters()} for part in parts] == [{False}] * 3 + [{True}] * 2
