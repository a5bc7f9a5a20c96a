"""Hiera, the hierarchical vision transformer under SAM 2 (Ryali et al. 2023, arXiv:2306.00989)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import MLP


@dataclass(frozen=True)
class HieraConfig:
    """Shape of a trunk with four stages at strides 4, 8, 16 and 32; channels and heads double from stage to stage."""

    dim: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: tuple[int, int] = (7, 7)

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Channels of each stage, finest first."""
        return (self.dim, self.dim * 2, self.dim * 4, self.dim * 8)

    def build(self) -> Hiera:
        """A trunk of this shape."""
        return Hiera(self)


HIERA_SIZES: Mapping[str, HieraConfig] = MappingProxyType(
    {
        "tiny": HieraConfig(96, 1, (1, 2, 7, 2), (5, 7, 9)),
        "small": HieraConfig(96, 1, (1, 2, 11, 2), (7, 10, 13)),
        "base_plus": HieraConfig(112, 2, (2, 3, 16, 3), (12, 16, 20), background=(14, 14)),
        "large": HieraConfig(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
    }
)


def _pool(x: Tensor) -> Tensor:
    """Maximum over 2 x 2 cells of (N, H, W, C)."""
    return functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) to (B * windows, size, size, C), zero-padded at the bottom and right."""
    height, width, channels = x.shape[1:]
    if height % size or width % size:
        x = functional.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def _from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `_to_windows`, the padding cut off."""
    size, channels = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, channels).transpose(2, 3)
    return x.reshape(-1, rows * size, columns * size, channels)[:, :height, :width]


class _Attention(nn.Module):
    """Self-attention within each window; pooled queries halve the window."""

    def __init__(self, dim: int, dim_out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = _pool(q)
        height, width = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(mixed.reshape(-1, height, width, self.proj.in_features))


class _Block(nn.Module):
    """Pre-norm transformer block; `window` 0 is global attention, `pool` halves the map."""

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, dim_out, heads, pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, activation=functional.gelu)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def _attend(self, x: Tensor) -> Tensor:
        if self.window == 0:
            return self.attn(x)
        height, width = x.shape[1:3]
        mixed = self.attn(_to_windows(x, self.window))
        return _from_windows(mixed, height // 2, width // 2) if self.pool else _from_windows(mixed, height, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.pool:
            x = _pool(self.proj(normed))
        x = x + self._attend(normed)
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    """Overlapping 7 x 7 patches at stride 4, channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """Image trunk of SAM 2, with absolute window position embedding (Bolya et al. 2023, arXiv:2311.05613)."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(config.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.dim, *config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.dim, config.windows[0], config.windows[0]))
        self.blocks = nn.ModuleList()
        self._ends = tuple(end - 1 for end in accumulate(config.blocks))
        dim, stage = config.dim, 0
        for index in range(sum(config.blocks)):
            # A stage's first block pools and doubles the channels, still in the windows of the stage before.
            starts = index - 1 in self._ends
            window = 0 if index in config.global_blocks else config.windows[stage]
            stage += starts
            self.blocks.append(_Block(dim, config.dims[stage], config.heads * 2**stage, window, pool=starts))
            dim = config.dims[stage]

    def _position(self, height: int, width: int) -> Tensor:
        background = functional.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        size = self.pos_embed_window.shape[-1]
        tiles = self.pos_embed_window.tile(1, 1, height // size, width // size)
        return (background + tiles).permute(0, 2, 3, 1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of the four stages.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised; S a multiple of 32

        Returns
        -------
        four maps (B, dims[i], S / 2**(i + 2), S / 2**(i + 2)), finest first
        """
        x = self.patch_embed(pixels)
        x = x + self._position(*x.shape[1:3])
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages
