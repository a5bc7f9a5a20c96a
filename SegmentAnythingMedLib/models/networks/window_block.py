"""Transformer blocks that attend within windows, shared by Hiera and the plain vision transformer of EfficientTAM.

Sources: Ryali et al. 2023 (arXiv:2306.00989) for pooling blocks, Li et al. 2022 (arXiv:2203.16527) for padded windows.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import MLP


def _pool(x: Tensor) -> Tensor:
    """Maximum over 2 x 2 cells of (N, H, W, C)."""
    return functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def to_windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) to (B * windows, size, size, C), zero-padded at the bottom and right."""
    height, width, channels = x.shape[1:]
    if height % size or width % size:
        x = functional.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `to_windows`, the padding cut off."""
    size, channels = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, channels).transpose(2, 3)
    return x.reshape(-1, rows * size, columns * size, channels)[:, :height, :width]


class _Attention(nn.Module):
    """Self-attention in a map, or within each of its windows; pooled queries halve the map."""

    def __init__(self, dim: int, dim_out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Attend in (B, H, W, C), to (B, H, W, dim_out) or half of it; `window` 0 is the whole map."""
        height, width = (length // 2 if self.pool else length for length in x.shape[1:3])
        q, k, v = self._in_windows(x, window) if window else self._projected(x, self.qkv.bias)
        if self.pool:
            q = _pool(q)
        rows, columns = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        mixed = mixed.reshape(-1, rows, columns, self.proj.in_features)
        return self.proj(from_windows(mixed, height, width) if window else mixed)

    def _in_windows(self, x: Tensor, window: int) -> tuple[Tensor, ...]:
        """Queries, keys and values of padded windows.

        Padding is zeros before the projection, so it is the bias after it: only true cells are projected (at 512 px
        32 x 32 and not 42 x 42).
        """
        parts = zip(self._projected(x, None), self.qkv.bias.chunk(3), strict=True)
        return tuple(to_windows(part, window) + bias.to(part.dtype) for part, bias in parts)

    def _projected(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        """Queries, keys and values."""
        if x.device.type != "cpu":
            return functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        # As fast in torch, but OpenVINO would copy the thirds (tiny at 512 px: 613 ms, not 539; in bf16 194, not 165).
        biases = (None, None, None) if bias is None else bias.chunk(3)
        thirds = zip(self.qkv.weight.chunk(3), biases, strict=True)
        return tuple(functional.linear(x, *third) for third in thirds)


class WindowBlock(nn.Module):
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

    def forward(self, x: Tensor, cut: bool = False) -> Tensor:
        """(B, H, W, C), or with `cut` the windows of maps that `to_windows` has made."""
        normed = self.norm1(x)
        if self.pool:
            x = _pool(self.proj(normed))
        x = x + self.attn(normed, 0 if cut else self.window)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Pixels (B, 3, H, W) to one token per patch, (B, h, w, C), channels last."""

    def __init__(self, dim: int, kernel: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=kernel, stride=stride, padding=padding)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).permute(0, 2, 3, 1)
