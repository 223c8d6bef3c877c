"""Builders and checks of networks that several tests share."""

import json
import math
from dataclasses import replace

import torch
from torch import nn

from models.building.build_options import RANDOM
from tests.conftest import ROOT

PREDECESSOR = json.loads((ROOT / "tests" / "data" / "predecessor_state_dicts.json").read_text())
NANO = "fasterrcnn_nano"


def checkpoint_of(model, name: str = NANO, classes: int = 3, **more) -> dict:
    names = ["__background__", *(f"c{i}" for i in range(1, classes))]
    return {"model_name": name, "model_state_dict": model.state_dict(), "data": {"CLASSES": names}, **more}


LARGE = {"convnext_base", "convnext_small", "efficientnet_b4", "resnet101", "resnet152", "vgg16"}  # seconds each
SMALL_HEAD = replace(RANDOM, head_width=16, rois_per_image=32)  # most of these networks is the box head's first layer


def randomize_norms(net: nn.Module) -> None:
    """Give batch norms statistics and weights that an error in their place, or a wrong eps, would show in."""
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)


def randomized(module: nn.Module, std: float = 0.3, seed: int = 0) -> nn.Module:
    """The module, every parameter random: those that start at 0 would hide a fault."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return module


def check_declarations(model: nn.Module) -> None:
    """Maps, strides and stages are as the spec says, at image sizes that are odd multiples of 32, too."""
    for size in ((512, 640), (544, 736), (96, 160)):
        maps = model.backbone.eval()(torch.empty(1, 3, *size, device="meta"))
        expected = [(1, 256, *(math.ceil(px / stride) for px in size)) for stride in model.spec.levels]
        assert [tuple(m.shape) for m in maps.values()] == expected
    assert list(maps)[: len(model.spec.strides)] == [str(i) for i in range(len(model.spec.strides))]
    assert len(model.spec.levels) == 5
    net = "body" if hasattr(model.backbone, "body") else "net"
    for name, _ in model.backbone.get_submodule(net).named_parameters(prefix=net):
        within = [stage for stage in model.spec.stages if any(name == p or name.startswith(f"{p}.") for p in stage)]
        assert len(within) == 1, name
    assert model.spec.frozen_stages < len(model.spec.stages)


def randomized_dinov3(net: nn.Module) -> nn.Module:
    """Weights under which every parameter changes the result, and outputs keep a size of about one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        random = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith(("gamma", "weight")):
            random = 1 + 0.3 * random
        elif parameter.ndim > 1 and "token" not in name:
            random /= parameter[0].numel() ** 0.5
        parameter.data.copy_(random)
    return net.eval()
