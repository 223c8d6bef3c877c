"""The trunk of ViTDet (Li et al. 2022, https://arxiv.org/abs/2203.16527): a transformer with attention in windows."""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

PATCH = 16  # px
WINDOW = 14  # patches: the whole grid of the pretraining
PRETRAINING_GRID = 14  # patches, of 224 px
TABLE_GRID = 64  # patches, of 1024 px, that the relative positions of global blocks are made for; others interpolate
NORM_EPS = 1e-6
MLP_RATIO = 4
ALIGNMENT = 8  # elements: the fused attention kernels of GPUs refuse head dimensions that are no multiple of it


class ViT(nn.Module):
    """Vision transformer whose blocks attend within windows, but for a few that attend to the whole image.

    Args:
        channels: of every token.
        depth: number of blocks.
        heads: of every attention.
        global_blocks: indices of the blocks without windows.
        drop_path: probability that the last block's branches are left out for an image in training; it rises to this
            linearly from 0 in the first block.
    """

    def __init__(
        self, *, channels: int, depth: int, heads: int, global_blocks: Collection[int], drop_path: float = 0.1
    ) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PRETRAINING_GRID**2, channels))  # the first is the class token
        self.patch_embed = _PatchEmbed(channels)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        windows = [None if i in global_blocks else WINDOW for i in range(depth)]
        self.blocks = nn.ModuleList(Block(channels, heads, *of_block) for of_block in zip(windows, rates, strict=True))
        self.grad_checkpointing = False
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(_init_linear)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float, sides multiples of 16 px -> (B, channels, H / 16, W / 16)."""
        x = self.patch_embed(images)
        x = x + self._positions(x.shape[1], x.shape[2])
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x.permute(0, 3, 1, 2)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only each block's input in training and compute the rest again in the backward pass."""
        self.grad_checkpointing = enable

    def _positions(self, height: int, width: int) -> Tensor:
        grid = self.pos_embed[:, 1:].unflatten(1, (PRETRAINING_GRID, PRETRAINING_GRID))
        if (height, width) == (PRETRAINING_GRID, PRETRAINING_GRID):
            return grid
        resized = F.interpolate(grid.permute(0, 3, 1, 2), (height, width), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and around a skip connection.

    Args:
        window: side in patches; None: attention over the whole grid.
        drop_path: probability that a branch is left out for an image in training.
    """

    def __init__(self, channels: int, heads: int, window: int | None, drop_path: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = RelativeAttention(channels, heads, window or TABLE_GRID)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mlp = _MLP(channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, channels) -> the same; H and W in patches."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        if self.window is None:
            return self.attn(x)
        return merge_windows(self.attn(split_windows(x, self.window)), x.shape[1], x.shape[2])


class RelativeAttention(nn.Module):
    """Multi-head self-attention with decomposed relative position (Li et al. 2022, https://arxiv.org/abs/2112.01526).

    The bias of query i and key j is q_i . (rel_pos_h[row distance] + rel_pos_w[column distance]). As it depends on j
    by its row and column only, it is a dot product of H + W numbers of the query with one-hot vectors of the key: both
    are appended to q and k, and no (H W) x (H W) bias exists.

    Args:
        side: in patches, of the grid that the tables of relative positions are made for.
    """

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, channels) -> the same."""
        height, width = x.shape[1:3]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5).unbind()
        d = q.shape[-1]  # of (B, heads, H, W, d)
        extra = -(d + height + width) % ALIGNMENT
        to_rows, to_columns = relative_positions(self.rel_pos_h, height), relative_positions(self.rel_pos_w, width)
        of_rows = torch.einsum("bnhwd,hkd->bnhwk", q, to_rows)
        of_columns = torch.einsum("bnhwd,wkd->bnhwk", q, F.pad(to_columns, (0, 0, 0, extra)))
        cells = _one_hot_cells(height, width, width + extra, q).expand(*k.shape[:-1], -1)
        q = torch.cat([q * d**-0.5, of_rows, of_columns], -1).flatten(2, 3)
        k = torch.cat([k, cells], -1).flatten(2, 3)
        v = F.pad(v.flatten(2, 3), (0, q.shape[-1] - d))  # fused kernels want one head dimension of all three
        x = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :d]
        return self.proj(x.transpose(1, 2).flatten(2).unflatten(1, (height, width)))


def relative_positions(table: Tensor, side: int) -> Tensor:
    """Rows of a (2 n - 1, d) table for each pair of cells of an axis, as (side, side, d): [query, key].

    The middle row is distance 0, and later rows are queries that come after the key. A table that was made for another
    side than n is interpolated linearly.
    """
    rows = 2 * side - 1
    if len(table) != rows:
        table = F.interpolate(table.T[None], rows, mode="linear", align_corners=False)[0].T
    index = torch.arange(side, device=table.device)
    return table[index[:, None] - index + side - 1]


def split_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (B windows, side, side, C), row by row; zeros fill up the last row and column."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % side, 0, -x.shape[1] % side))
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(0, 2)


def merge_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Invert split_windows: back to a (B, height, width, C) map."""
    side = windows.shape[1]
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x[:, :height, :width]


class _PatchEmbed(nn.Module):
    """(B, 3, H, W) -> (B, H / 16, W / 16, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


class _MLP(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _one_hot_cells(height: int, width: int, padded_width: int, like: Tensor) -> Tensor:
    """(height, width, height + padded_width): each cell's row, one-hot, and its column, one-hot."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device)[:, None].expand(-1, width, -1)
    columns = torch.eye(width, padded_width, dtype=like.dtype, device=like.device).expand(height, -1, -1)
    return torch.cat([rows, columns], -1)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
