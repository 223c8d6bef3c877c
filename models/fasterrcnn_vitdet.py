"""Faster R-CNN on ViTDet: a base vision transformer, windowed attention, and a simple feature pyramid.

Paper: Li et al. 2022, https://arxiv.org/abs/2203.16527
Weights: masked autoencoder on ImageNet-1k, mae_pretrain_vit_base (CC-BY-NC 4.0).
Cost: 106.0 M parameters, 244.7 GFLOPs, strides 4 8 16 32 64.
"""

from torch import nn

from models.backbones import vitdet
from models.building.build_options import BuildOptions
from models.building.pretrained import weights_file

MAE_URL = "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"
SPEC = vitdet.SPEC


def backbone(pretrained: bool, options: BuildOptions) -> nn.Module:
    """A base vision transformer with a simple feature pyramid; `pretrained` loads the masked autoencoder."""
    net = vitdet.vitdet_backbone(channels=768, heads=12)
    if pretrained:
        vitdet.load_mae(net.net, weights_file("mae_pretrain_vit_base.pth", MAE_URL))
    return net
