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
    """Self-attention within each window; pooled queries halve the window."""

    def __init__(self, dim: int, dim_out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._projected(x)
        if self.pool:
            q = _pool(q)
        height, width = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(mixed.reshape(-1, height, width, self.proj.in_features))

    def _projected(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.device.type != "cpu":
            return self.qkv(x).chunk(3, dim=-1)
        # As fast in torch, but OpenVINO would copy the thirds (tiny at 512 px: 613 ms, not 539; in bf16 194, not 165).
        thirds = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        return tuple(functional.linear(x, weight, bias) for weight, bias in thirds)


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

    def _attend(self, x: Tensor) -> Tensor:
        if self.window == 0:
            return self.attn(x)
        height, width = x.shape[1:3]
        mixed = self.attn(to_windows(x, self.window))
        return from_windows(mixed, height // 2, width // 2) if self.pool else from_windows(mixed, height, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.pool:
            x = _pool(self.proj(normed))
        x = x + self._attend(normed)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Pixels (B, 3, H, W) to one token per patch, (B, h, w, C), channels last."""

    def __init__(self, dim: int, kernel: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=kernel, stride=stride, padding=padding)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).permute(0, 2, 3, 1)
