"""Spatial perceiver of EdgeTAM (Zhou et al. 2025, arXiv:2501.07256): a memory map becomes a few tokens.

Half of the tokens look at the whole map; each of the others looks at its own window, so that they keep their places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import sine_encoding_2d


class _Attention(nn.Module):
    """Single-head attention of tokens to an input; projections without bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def attend(self, tokens: Tensor, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Mix x (B, M, C), with its position added to keys and to values, for tokens (B, N, C)."""
        key, value = self.to_kv(x).chunk(2, dim=-1)
        if position is not None:
            key, value = key + position.to(key.dtype), value + position.to(key.dtype)
        heads = (t.unsqueeze(1) for t in (self.to_q(tokens), key, value))
        return self.to_out(functional.scaled_dot_product_attention(*heads).squeeze(1))


class _CrossAttention(_Attention):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm_x = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        return self.attend(self.norm_latents(tokens), self.norm_x(x), position)


class _SelfAttention(_Attention):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        return self.attend(normed, normed)


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )


class _Layer(nn.Module):
    """Tokens look at the input, then at each other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = _CrossAttention(dim)
        self.ff = _feed_forward(dim)
        self.self_attn = _SelfAttention(dim)
        self.self_ff = _feed_forward(dim)

    def forward(self, tokens: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        tokens = tokens + self.attn(tokens, x, position)
        tokens = tokens + self.ff(tokens)
        tokens = tokens + self.self_attn(tokens)
        return tokens + self.self_ff(tokens)


class SpatialPerceiver(nn.Module):
    """Compress maps to `latents` tokens of the whole and `grid` x `grid` tokens of windows."""

    def __init__(self, dim: int, latents: int, grid: int, depth: int = 2) -> None:
        super().__init__()
        self.grid = grid
        self.latents = nn.Parameter(torch.randn(latents, dim))
        self.latents_2d = nn.Parameter(torch.randn(grid * grid, dim))
        self.layers = nn.ModuleList(_Layer(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Compress B maps.

        Parameters
        ----------
        maps : (B, C, H, W), H and W multiples of `grid`

        Returns
        -------
        (B, latents + grid * grid, C), tokens of the whole first, then those of the windows, row by row
        """
        batch, channels, height, width = maps.shape
        position = sine_encoding_2d(channels, height, width, maps.device).flatten(2).mT
        whole = self._look(self.latents.expand(batch, -1, -1), maps.flatten(2).mT, position)
        windows = maps.unflatten(3, (self.grid, -1)).unflatten(2, (self.grid, -1)).permute(0, 2, 4, 3, 5, 1)
        alone = self.latents_2d.expand(batch, -1, -1).reshape(-1, 1, channels)
        local = self._look(alone, windows.reshape(len(alone), -1, channels), None)
        return torch.cat([whole, local.reshape(batch, -1, channels)], dim=1)

    def _look(self, tokens: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, x, position)
        return self.norm(tokens)
