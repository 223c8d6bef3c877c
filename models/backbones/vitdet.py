"""Shared code of the ViTDet detectors: vision transformer, simple feature pyramid, published weights."""

from collections.abc import Mapping
from pathlib import Path

from models.backbones.simple_feature_pyramid import SimpleFeaturePyramid
from models.backbones.vit import ViT
from models.building.backbone_spec import BackboneSpec
from models.building.pretrained import checked_state, load_state, read_weights
from models.rcnn.errors import ModelError

DEPTH = 12
GLOBAL_BLOCKS = (2, 5, 8, 11)  # ViTDet paper, section 3: the last of each quarter
MAE_ONLY = {"cls_token", "norm.weight", "norm.bias"}
SPEC = BackboneSpec(
    out_channels=256,
    strides=(4, 8, 16, 32),
    extra_levels=1,
    one_anchor_size_per_level=True,
    stages=(("net.patch_embed", "net.pos_embed"), *((f"net.blocks.{i}",) for i in range(DEPTH))),
)


def vitdet_backbone(*, channels: int, heads: int) -> SimpleFeaturePyramid:
    """Random weights; its maps are as SPEC says."""
    net = ViT(channels=channels, depth=DEPTH, heads=heads, global_blocks=GLOBAL_BLOCKS)
    return SimpleFeaturePyramid(net, channels, SPEC.out_channels)


def load_mae(net: ViT, path: Path) -> None:
    """Load the encoder of a masked autoencoder (He et al. 2021, https://arxiv.org/abs/2111.06377), under key "model".

    It has no relative positions, which stay as they are, and a class token and a last norm, which ViTDet does without.

    Raises:
        ModelError: other keys than these differ, or shapes do; or the file is damaged.
    """
    content = read_weights(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise ModelError(
            f'{path}: not the weights of a masked autoencoder, which are under "model": delete the file and run again'
        )
    state = checked_state(content["model"], f'{path}: its "model"')
    own = net.state_dict()
    new = {key for key in own if key.endswith(("rel_pos_h", "rel_pos_w"))}
    misfits = sorted((own.keys() ^ state.keys()) ^ (new | MAE_ONLY))
    if misfits:
        raise ModelError(
            f"{path}: not the weights of a masked autoencoder for this model: "
            f"they {'also have' if misfits[0] in state else 'lack'} {misfits[0]}"
            + (f", and {len(misfits) - 1} more keys differ" if len(misfits) > 1 else "")
            + ": delete the file and run again"
        )
    load_state(net, {key: own[key] if key in new else state[key] for key in own})
