"""Backbones from torchvision's classification networks, without and with feature pyramids."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torchvision.models import ConvNeXt, EfficientNet, ResNet, WeightsEnum
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.regnet import BlockParams, RegNet

from models.backbones.fpn import with_fpn
from models.building.pretrained import load_published

RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")
RESNET_STAGES = (("conv1", "bn1"), *((layer,) for layer in RESNET_LAYERS))
# Stem, then each stage with the downsampling before it.
CONVNEXT_STAGES = (("0",), ("1",), ("2", "3"), ("4", "5"), ("6", "7"))
# The last child of each stride; the wide convolution after them serves the classifier.
EFFICIENTNET_MAPS = ("2", "3", "5", "7")
EFFICIENTNET_STAGES = (("0", "1"), ("2",), ("3",), ("4", "5"), ("6", "7"))

Net = TypeVar("Net", bound=nn.Module)


def classification_net(build: Callable[[], Net], weights: WeightsEnum, pretrained: bool) -> Net:
    """A classification network with random weights, or with published ones.

    Args:
        build: torchvision's function for the network.
        weights: loaded if `pretrained`.

    Raises:
        ModelError: see load_published.
    """
    net = build()
    if pretrained:
        load_published(net, weights)
    return net


def without_classifier(net: nn.Module) -> nn.Sequential:
    """The children of a network before its last two, the average pool and the classifier."""
    return nn.Sequential(*list(net.children())[:-2])


def resnet_with_fpn(net: ResNet, *, norm_layer: type[nn.Module] | None = None) -> BackboneWithFPN:
    """A ResNet of any depth with a feature pyramid; each layer has twice the channels of the one before.

    Args:
        norm_layer: norm in the pyramid; None: no norm.
    """
    first = net.fc.in_features // 8
    return with_fpn(net, {layer: first * 2**i for i, layer in enumerate(RESNET_LAYERS)}, norm_layer=norm_layer)


def convnext_with_fpn(net: ConvNeXt) -> BackboneWithFPN:
    """A ConvNeXt of any size with a feature pyramid, which reads each map through a layer norm.

    The residual stream of a ConvNeXt is not normalized, so its authors' detectors have these norms too.
    """
    first = net.features[0][0].out_channels
    maps = {stage[-1]: first * 2**i for i, stage in enumerate(CONVNEXT_STAGES[1:])}
    backbone = with_fpn(net.features, maps)
    for lateral, channels in zip(backbone.fpn.inner_blocks, maps.values(), strict=True):
        lateral.insert(0, LayerNorm2d(channels, eps=1e-6))
    return backbone


def efficientnet_with_fpn(net: EfficientNet) -> BackboneWithFPN:
    """An EfficientNet of any size with a feature pyramid."""
    return with_fpn(net.features, {child: net.features[int(child)][-1].out_channels for child in EFFICIENTNET_MAPS})


def regnet_y_400mf() -> RegNet:
    """torchvision's network with random weights; torchvision's function cannot run on the meta device."""
    with torch.device("cpu"):  # widths are computed with tensors
        widths = BlockParams.from_init_params(depth=16, w_0=48, w_a=27.89, w_m=2.09, group_width=8, se_ratio=0.25)
    return RegNet(widths, norm_layer=partial(nn.BatchNorm2d, eps=1e-5, momentum=0.1))
