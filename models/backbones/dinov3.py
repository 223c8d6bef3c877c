"""The networks of DINOv3 (Siméoni et al. 2025, https://arxiv.org/abs/2508.10104): vision transformers and ConvNeXts.

Keys, attributes and results are those of the official models, whose weights files load as they are. Training does not
change what they compute: the random rotary coordinates and dropped paths of self-supervised training are left out.

torch and the standard library only: dinov3/hubconf.py loads this file by its path.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

VITS: Mapping[str, Mapping[str, Any]] = {
    "vits16": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vits16plus": {"embed_dim": 384, "depth": 12, "num_heads": 6, "ffn_ratio": 6, "swiglu": True},
    "vitb16": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vitl16": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vith16plus": {"embed_dim": 1280, "depth": 32, "num_heads": 20, "ffn_ratio": 6, "swiglu": True},
}
CONVNEXTS: Mapping[str, Mapping[str, Any]] = {
    "convnext_tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "convnext_small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "convnext_base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "convnext_large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
}
WEIGHTS = {  # names of the official files, which end in the first 8 digits of their SHA-256
    "vits16": "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
    "vits16plus": "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth",
    "vitb16": "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
    "vitl16": "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
    "vith16plus": "dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth",
    "convnext_tiny": "dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth",
    "convnext_small": "dinov3_convnext_small_pretrain_lvd1689m-296db49d.pth",
    "convnext_base": "dinov3_convnext_base_pretrain_lvd1689m-801f2ba9.pth",
    "convnext_large": "dinov3_convnext_large_pretrain_lvd1689m-61fa432d.pth",
}
WEIGHTS_PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"


class _Network(nn.Module):
    """Base class of the networks."""

    def __init__(self, embed_dim: int, n_blocks: int) -> None:
        super().__init__()
        self.embed_dim = self.num_features = embed_dim
        self.n_blocks = self.depth = n_blocks
        self.grad_checkpointing = False
        self.head = nn.Identity()

    def forward(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Class token of the images, see forward_features: (B, 3, H, W) -> (B, embed_dim)."""
        return self.head(self.forward_features(x, masks)["x_norm_clstoken"])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def _features(self, normed: Tensor) -> dict[str, Tensor | None]:
        kinds = ("x_norm_clstoken", "x_storage_tokens", "x_norm_patchtokens")
        first_patch = 1 + self.n_storage_tokens
        return dict(zip(kinds, (normed[:, 0], normed[:, 1:first_patch], normed[:, first_patch:]), strict=True))

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)


class VisionTransformer(_Network):
    """A plain vision transformer over patches of 16 x 16 px, a class token, storage tokens and rotary positions.

    Args:
        embed_dim: channels.
        depth: blocks.
        num_heads: divides embed_dim into heads of a multiple of 4 channels.
        ffn_ratio: width of the hidden layer of a block, in embed_dim; of a gated one two thirds of it.
        swiglu: hidden layers are gated (Shazeer 2020, https://arxiv.org/abs/2002.05202).
    """

    patch_size = 16
    n_storage_tokens = 4

    def __init__(
        self, *, embed_dim: int, depth: int, num_heads: int, ffn_ratio: float = 4, swiglu: bool = False
    ) -> None:
        super().__init__(embed_dim, depth)
        self.num_heads = num_heads
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        self.storage_tokens = nn.Parameter(0.02 * torch.randn(1, self.n_storage_tokens, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        patches = nn.Conv2d(3, embed_dim, self.patch_size, self.patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=patches))
        self.rope_embed = _RotaryPositions(embed_dim // num_heads)
        hidden = int(embed_dim * ffn_ratio)
        self.blocks = nn.ModuleList(_ViTBlock(embed_dim, num_heads, hidden, swiglu) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> dict[str, Tensor | None]:
        """All tokens after the last block.

        Args:
            x: (B, 3, H, W) float, mean and std of ImageNet applied; what exceeds multiples of 16 px is not looked at.
            masks: (B, HW / 256) bool, patches that the mask token stands for.

        Returns:
            x_norm_clstoken (B, embed_dim), x_storage_tokens (B, 4, embed_dim), x_norm_patchtokens (B, HW / 256,
            embed_dim), all normalized; x_prenorm, the tokens in this order, not normalized; masks.
        """
        (tokens,) = self._outputs(x, [self.n_blocks - 1], masks)
        return {**self._features(self.norm(tokens)), "x_prenorm": tokens, "masks": masks}

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
        return_extra_tokens: bool = False,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], ...]:
        """Patch tokens after some of the blocks, in the order of the blocks.

        Args:
            x: as for `forward_features`.
            n: the last n blocks, or the numbers of the blocks from 0.
            reshape: as maps (B, embed_dim, H / 16, W / 16) instead of (B, HW / 256, embed_dim).
            return_class_token: give pairs with the class tokens, (B, embed_dim).
            norm: apply the last norm to each.
            return_extra_tokens: give pairs (or triples, after the class tokens) with the storage tokens.

        Raises:
            ValueError: there is no such block.
        """
        outputs = self._outputs(x, _indices(n, self.n_blocks))
        if norm:
            outputs = [self.norm(tokens) for tokens in outputs]
        first_patch = 1 + self.n_storage_tokens
        patches = [tokens[:, first_patch:] for tokens in outputs]
        if reshape:
            batch, _, height, width = x.shape
            shape = (batch, height // self.patch_size, width // self.patch_size, -1)
            patches = [tokens.reshape(shape).permute(0, 3, 1, 2).contiguous() for tokens in patches]
        columns = [patches]
        if return_class_token:
            columns.append([tokens[:, 0] for tokens in outputs])
        if return_extra_tokens:
            columns.append([tokens[:, 1:first_patch] for tokens in outputs])
        return tuple(zip(*columns, strict=True)) if len(columns) > 1 else tuple(patches)

    def _outputs(self, x: Tensor, indices: Sequence[int], masks: Tensor | None = None) -> list[Tensor]:
        """Tokens after the blocks of these numbers: class, storage, patches; (B, 5 + HW / 256, embed_dim)."""
        maps = self.patch_embed(x)
        batch, _, height, width = maps.shape
        patches = maps.flatten(2).transpose(1, 2)
        if masks is not None:
            patches = torch.where(masks.unsqueeze(-1), self.mask_token.to(patches.dtype).unsqueeze(0), patches)
        class_token = self.cls_token + 0 * self.mask_token  # its gradient is one that distributed training waits for
        tokens = torch.cat([t.expand(batch, -1, -1) for t in (class_token, self.storage_tokens)] + [patches], dim=1)
        sin, cos = self.rope_embed(height, width)
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = self._run(block, tokens, sin, cos)
            if index in indices:
                outputs.append(tokens)
        return outputs


class ConvNeXt(_Network):
    """A ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545) of four stages at strides 4, 8, 16 and 32.

    Args:
        depths: blocks of each stage.
        dims: channels of each stage.
        patch_size: side in px of the cells that get_intermediate_layers resizes its maps to; None leaves them.
    """

    n_storage_tokens = 0

    def __init__(self, *, depths: Sequence[int], dims: Sequence[int], patch_size: int | None = None) -> None:
        super().__init__(dims[-1], len(depths))
        self.embed_dims = list(dims)
        self.patch_size = patch_size
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), _MapNorm(dims[0]))])
        for fine, coarse in pairwise(dims):
            self.downsample_layers.append(nn.Sequential(_MapNorm(fine), nn.Conv2d(fine, coarse, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(_ConvNeXtBlock(dim) for _ in range(depth))) for dim, depth in zip(dims, depths, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.norms = nn.ModuleList([*(nn.Identity() for _ in dims[1:]), self.norm])

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> dict[str, Tensor | None]:
        """The last map as tokens (B, HW / 1024, embed_dim), and its mean as class token.

        As of a vision transformer, but x_storage_tokens is empty, x_prenorm the patch tokens alone, masks do nothing.
        """
        (last,) = self._outputs(x, [self.n_blocks - 1])
        tokens = last.flatten(2).transpose(1, 2)
        normed = self.norm(torch.cat([last.mean((-2, -1)).unsqueeze(1), tokens], dim=1))
        return {**self._features(normed), "x_prenorm": tokens, "masks": masks}

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Outputs of some of the stages, finest first.

        Args:
            x: (B, 3, H, W) float, mean and std of ImageNet applied.
            n: the last n stages, or the numbers of the stages from 0.
            reshape: as maps (B, C, H / stride, W / stride) instead of tokens (B, HW / stride², C).
            return_class_token: give pairs with the means over the maps, (B, C).
            norm: apply the last norm to the last stage; the others have none.

        Raises:
            ValueError: there is no such stage.
        """
        indices = _indices(n, self.n_blocks)
        results = []
        for index, stage_map in zip(sorted(indices), self._outputs(x, indices), strict=True):
            apply_norm = self.norms[index] if norm else nn.Identity()
            class_token = apply_norm(stage_map.mean((-2, -1)))
            if self.patch_size is not None:
                size = [side // self.patch_size for side in x.shape[-2:]]
                stage_map = F.interpolate(stage_map, size=size, mode="bilinear", antialias=True)
            patches = apply_norm(stage_map.flatten(2).permute(0, 2, 1))
            if reshape:
                patches = patches.permute(0, 2, 1).reshape(stage_map.shape).contiguous()
            results.append((patches, class_token))
        return tuple(results) if return_class_token else tuple(patches for patches, _ in results)

    def _outputs(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Maps after the stages of these numbers."""
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            for block in stage:
                x = self._run(block, x)
            if index in indices:
                outputs.append(x)
        return outputs


def build(name: str, **options: Any) -> VisionTransformer | ConvNeXt:
    """The network of a name of VITS or CONVNEXTS, with random weights; `options` are further arguments of its class."""
    return VisionTransformer(**VITS[name], **options) if name in VITS else ConvNeXt(**CONVNEXTS[name], **options)


def completed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with a ConvNeXt's last norm under both of its names, norm and norms.3, where it has one of them."""
    if "downsample_layers.0.0.weight" not in state:
        return dict(state)
    norms = {key: value for key, value in state.items() if key.startswith(("norm.", "norms.3."))}
    twins = {key.replace("norms.3.", "norm."): value for key, value in norms.items()}
    return {**twins, **{key.replace("norm.", "norms.3."): value for key, value in twins.items()}, **state}


class _RotaryPositions(nn.Module):
    """Rotary position embedding of patches: rows turn half of a head's channels, columns the other half."""

    def __init__(self, channels: int, base: float = 100.0) -> None:
        super().__init__()
        number = torch.arange(channels // 4, dtype=torch.float32)
        self.register_buffer("periods", base ** (2 * number / (channels // 2)))  # official files have them rounded

    def forward(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine, each (height * width, channels) float32; the order of operations decides the last bits."""
        factory = {"dtype": torch.float32, "device": self.periods.device}
        rows = torch.arange(0.5, height, **factory) / height
        columns = torch.arange(0.5, width, **factory) / width
        centers = 2.0 * torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1) - 1.0
        angles = 2 * torch.pi * centers[:, :, None] / self.periods[None, None, :]
        angles = angles.flatten(1, 2).tile(2)
        return angles.sin(), angles.cos()


class _ViTBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, swiglu: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn = _Attention(dim, heads)
        self.ls1 = _LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = _SwiGLU(dim, hidden) if swiglu else _MLP(dim, hidden)
        self.ls2 = _LayerScale(dim)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), sin, cos))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _QKV(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        x = F.scaled_dot_product_attention(_turned(q, sin, cos), _turned(k, sin, cos), v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, channels))


class _QKV(nn.Linear):
    """Queries, keys and values. A bias of the keys cancels out in the softmax, and drifts: a mask keeps it at zero."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias * self.bias_mask.to(self.bias.dtype))


class _LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _SwiGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        width = -(-(hidden * 2 // 3) // 8) * 8  # the next multiple of 8
        self.w1 = nn.Linear(dim, width)
        self.w2 = nn.Linear(dim, width)
        self.w3 = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class _ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class _MapNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a (B, C, H, W) map, in the official order of operations."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def _turned(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Queries or keys (B, heads, tokens, channels), the last len(sin) tokens turned to their positions, in float32."""
    turned = x.to(sin.dtype)
    others, patches = turned.split([x.shape[-2] - len(sin), len(sin)], dim=-2)
    first, second = patches.chunk(2, dim=-1)
    patches = patches * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([others, patches], dim=-2).to(x.dtype)


def _indices(n: int | Sequence[int], count: int) -> Sequence[int]:
    indices = range(count - n, count) if isinstance(n, int) else n
    if not all(0 <= index < count for index in indices) or len(set(indices)) < len(indices):
        raise ValueError(f"n is {n}, expected at most {count}, or different numbers from 0 to {count - 1}")
    return indices
