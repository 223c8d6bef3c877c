"""RegNetY-400MF (Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678), on any device."""

from functools import partial

import torch
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet


def regnet_y_400mf() -> RegNet:
    """torchvision's network without weights; torchvision's own function cannot run on the meta device."""
    with torch.device("cpu"):  # widths are computed with tensors
        widths = BlockParams.from_init_params(depth=16, w_0=48, w_a=27.89, w_m=2.09, group_width=8, se_ratio=0.25)
    return RegNet(widths, norm_layer=partial(nn.BatchNorm2d, eps=1e-5, momentum=0.1))
