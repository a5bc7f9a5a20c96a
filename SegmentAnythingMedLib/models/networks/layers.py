"""Small layers and position encodings shared by the networks.

Position encodings are functions, not buffers: they are separable and cheap, so nothing is cached per slice, and a
module built on the meta device has no constant that a checkpoint could not fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm; in evaluation folded into one convolution each time it runs.

    The folded weights are never stored: checkpoints keep their keys, and gradients still reach every weight.
    """

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(dim_out)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that both are in evaluation."""
        scale = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        return self.c.weight * scale[:, None, None, None], self.bn.bias - self.bn.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if self.bn.training:
            return self.bn(self.c(x))
        return functional.conv2d(x, *self.folded(), self.c.stride, self.c.padding, groups=self.c.groups)


class MLP(nn.Module):
    """Linear layers with an activation between them (none after the last)."""

    def __init__(self, *widths: int, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


class TwoLayerMLP(nn.Module):
    """Two linear layers of equal outer width, under the names that SAM gave them."""

    def __init__(self, dim: int, inner_dim: int, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, inner_dim)
        self.lin2 = nn.Linear(inner_dim, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(x)))


class Attention(nn.Module):
    """Multi-head attention whose projections may be narrower than its input (Vaswani et al. 2017)."""

    def __init__(self, dim: int, heads: int, inner_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = inner_dim or dim
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        return self.out_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _wavelengths(count: int, device: torch.device) -> Tensor:
    """Geometric wavelengths 1 to 10000, each used twice (sine and cosine)."""
    index = torch.arange(count, dtype=torch.float32, device=device)
    return 10000 ** (2 * (index // 2) / count)


def sine_encoding_1d(positions: Tensor, channels: int) -> Tensor:
    """Encode numbers by sines, then cosines (Vaswani et al. 2017).

    Parameters
    ----------
    positions : (N,) float32
    channels : even number of channels C

    Returns
    -------
    (N, C) float32
    """
    angles = positions[:, None] / _wavelengths(channels // 2, positions.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sine_encoding_2d(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """Encode the cells of a grid: half the channels for the row, half for the column (DETR, Carion et al. 2020).

    Returns
    -------
    (1, channels, height, width) float32
    """
    half = channels // 2

    def along(length: int) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = (position / (length + 1e-6) * 2 * math.pi)[:, None] / _wavelengths(half, device)
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1).T

    rows = along(height)[:, :, None].expand(half, height, width)
    columns = along(width)[:, None, :].expand(half, height, width)
    return torch.cat([rows, columns])[None]


def rotary_tables(channels: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of axial rotary encoding (RoFormer, Su et al. 2021; RoPE-ViT, Heo et al. 2024).

    Returns
    -------
    cos, sin : (height * width, channels / 2) float32; the first half turns with the column, the second with the row
    """
    frequencies = 10000 ** (-torch.arange(0, channels, 4, dtype=torch.float32, device=device) / channels)
    columns = torch.outer(torch.arange(width, dtype=torch.float32, device=device), frequencies)
    rows = torch.outer(torch.arange(height, dtype=torch.float32, device=device), frequencies)
    shape = (height, width, len(frequencies))
    angles = torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], dim=-1).flatten(0, 1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + C/2) of x (..., N, C) by the angles in cos, sin (N, C/2); computed in float32."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
