"""SAM's image encoder: a plain ViT with windowed attention and relative positions (Kirillov et al. 2023,
arXiv:2304.02643; Li et al. 2022, ViTDet, arXiv:2203.16527).

Adapters change a block: subclass `VitBlock` and `ImageEncoder.block`. Side branches use `embed`, `blocks` and `neck`
one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import LayerNorm2d, TwoLayerMLP
from .window_block import PatchEmbed, from_windows, to_windows


@dataclass(frozen=True)
class VitConfig:
    """Shape of the encoder.

    Attributes
    ----------
    dim, heads, depth : channels, attention heads and blocks
    global_blocks : blocks that attend to the whole slice; the others attend within windows
    window : tokens along the side of a window
    image_size : pixels along the side of the input
    patch : pixels along the side of a patch
    channels : of the embedding
    mlp_dim : width inside a block, by default four times `dim`
    """

    dim: int
    heads: int
    depth: int
    global_blocks: tuple[int, ...]
    window: int = 14
    image_size: int = 1024
    patch: int = 16
    channels: int = 256
    mlp_dim: int = 0

    @property
    def grid(self) -> int:
        """Tokens along the side of the slice."""
        return self.image_size // self.patch


VIT_SIZES: Mapping[str, VitConfig] = MappingProxyType(
    {
        "b": VitConfig(768, 12, 12, (2, 5, 8, 11)),
        "l": VitConfig(1024, 16, 24, (5, 11, 17, 23)),
        "h": VitConfig(1280, 16, 32, (7, 15, 23, 31)),
    }
)


class VitAttention(nn.Module):
    """Self-attention over a (B, side, side, C) map with decomposed relative positions."""

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        channels = q.shape[-1]
        places = q.unflatten(2, (height, width))
        down = torch.einsum("bnhwc,hkc->bnhwk", places, _relative(self.rel_pos_h, height)).flatten(2, 3)
        across = torch.einsum("bnhwc,wkc->bnhwk", places, _relative(self.rel_pos_w, width)).flatten(2, 3)
        # The bias of a query depends on the key's row and column alone, so it is a product with their indicators. As
        # more channels it is exact, costs no tokens x tokens map (0.8 GB at 1024 pixels) and 0.4 of the time on a CPU.
        q = torch.cat([q * channels**-0.5, down, across], dim=-1)
        k = torch.cat([k, _indicators(height, width, k).expand(*k.shape[:3], -1)], dim=-1)
        v = functional.pad(v, (0, height + width))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
        return self.proj(mixed.transpose(1, 2).flatten(2).unflatten(1, (height, width)))


def _relative(table: Tensor, side: int) -> Tensor:
    """(side, side, C): entry (query, key) of a table of (2 * side - 1, C) relative positions."""
    if len(table) != 2 * side - 1:
        table = functional.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
    at = torch.arange(side, device=table.device)
    return table[at[:, None] - at[None] + side - 1]


def _indicators(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, height + width): ones at the row and the column of each cell."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([rows, columns], dim=1)


class VitBlock(nn.Module):
    """Pre-norm transformer block of the encoder's `index`; what an adapter changes is `feed_forward`."""

    def __init__(self, config: VitConfig, index: int) -> None:
        super().__init__()
        self.window = 0 if index in config.global_blocks else config.window
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = VitAttention(config.dim, config.heads, self.window or config.grid)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = TwoLayerMLP(config.dim, config.mlp_dim or 4 * config.dim, functional.gelu)

    def attend(self, x: Tensor) -> Tensor:
        """Attention over a normalised (B, H, W, C) map, in windows where the block has them."""
        if not self.window:
            return self.attn(x)
        return from_windows(self.attn(to_windows(x, self.window)), *x.shape[1:3])

    def feed_forward(self, x: Tensor) -> Tensor:
        """What is added to the (B, H, W, C) map after attention."""
        return self.mlp(self.norm2(x))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.feed_forward(x)


class ImageEncoder(nn.Module):
    """Pixels to the image embedding."""

    block: ClassVar[type[VitBlock]] = VitBlock

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.dim, kernel=config.patch, stride=config.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.dim))
        self.blocks = nn.ModuleList(self.block(config, index) for index in range(config.depth))
        self.neck = nn.Sequential(
            nn.Conv2d(config.dim, config.channels, kernel_size=1, bias=False),
            LayerNorm2d(config.channels),
            nn.Conv2d(config.channels, config.channels, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(config.channels),
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pixels to (B, S/16, S/16, dim) placed tokens."""
        return self.patch_embed(pixels) + self.pos_embed

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode slices.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised; S is `image_size`

        Returns
        -------
        embedding : (B, channels, S/16, S/16)
        early : (B, dim, S/16, S/16), after the first block with global attention
        """
        x = early = self.embed(pixels)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.config.global_blocks[:1]:
                early = x
        return self.neck(x.permute(0, 3, 1, 2)), early.permute(0, 3, 1, 2)
