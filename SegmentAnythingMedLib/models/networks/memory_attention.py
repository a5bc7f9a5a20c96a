"""Memory attention of SAM 2 (Ravi et al. 2024, arXiv:2408.00714): a slice's embedding looks at memories of others.

Attention weights sum to one and values are a linear map of the memories, so `weights @ (memory @ V)` is computed as
`(weights @ memory) @ V`: the same result with 64 instead of 256 channels in the large product, 1.6 times fewer
operations in cross-attention. Channels of queries and keys are reordered together, which changes no dot product and
lets rotary encoding turn two halves instead of interleaved pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import rotary_tables, rotate, sine_encoding_2d

_QUERY_ROWS = 256  # at 512 px and seven memories their scores are 7 MB: near a CPU's cache
_MANY_ROWS = 1024  # in bf16, and for OpenVINO, which cuts its rows itself (256 rows 140 ms in bf16, 1024 rows 117)

Rotation = tuple[Tensor, Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of (B, N, C) to (B, M, C) over values (B, M, V); bias (M,) is added to the scores."""
    if query.device.type != "cpu" or torch.is_grad_enabled():
        heads = (t.unsqueeze(1) for t in (query, key, value))
        mask = None if bias is None else bias.to(query.dtype)[None, None, None]
        return functional.scaled_dot_product_attention(*heads, attn_mask=mask).squeeze(1)
    # Plain products: torch's fused CPU attention gains nothing from bf16 (tiny at 512 px, one core, all layers: fused
    # 506 ms, bf16 409; this 382, bf16 107). In bf16 every product packs all keys anew: with AMX 256 rows at a time take
    # 396 ms, 1024 take 225. Autocast would compute the softmax in float32, for the same error.
    few = query.dtype is not torch.bfloat16 and not torch.compiler.is_compiling()
    with torch.autocast("cpu", enabled=False):
        turned = key.transpose(1, 2)
        chunks = (query * query.shape[-1] ** -0.5).split(_QUERY_ROWS if few else _MANY_ROWS, dim=1)
        scores = (rows @ turned if bias is None else rows @ turned + bias for rows in chunks)
        return torch.cat([torch.softmax(part, dim=-1) @ value for part in scores], dim=1)


def in_halves(linear: nn.Linear, x: Tensor) -> Tensor:
    """The layer's even output channels first, then the odd ones; its rows are reordered, which are few."""
    return functional.linear(x, *halves(linear))


def halves(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer for its even output channels first, then the odd ones."""
    weight, bias = (torch.cat([part[0::2], part[1::2]]) for part in (linear.weight, linear.bias))
    return weight, bias


class RotaryAttention(nn.Module):
    """Single-head attention with rotary positions; values are mixed before they are projected."""

    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(memory_dim, dim)
        self.v_proj = nn.Linear(memory_dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Rotation, key_rotation: Rotation, maps: int
    ) -> Tensor:
        """Attend; the first `maps * N` keys are whole maps of N tokens, each rotated by `key_rotation`.

        Parameters
        ----------
        query : (B, HW, C)
        key, value : (B, maps * N + P, memory_dim)
        rotation, key_rotation : of the HW queries and of the N tokens of a map
        """
        cells = len(key_rotation[0])
        q = rotate(in_halves(self.q_proj, query), *rotation)
        k = in_halves(self.k_proj, key)
        placed, unplaced = k.split([maps * cells, key.shape[1] - maps * cells], dim=1)
        placed = rotate(placed.unflatten(1, (maps, cells)), *key_rotation)
        return self.out_proj(self.v_proj(self.mix(q, placed, unplaced, value.to(q.dtype))))

    def mix(self, query: Tensor, placed: Tensor, unplaced: Tensor, value: Tensor) -> Tensor:
        """What each query sees of the values.

        Parameters
        ----------
        query : (B, HW, C), rotated
        placed : (B, maps, N, C), rotated keys of the maps
        unplaced : (B, P, C), keys without a place
        value : (B, maps * N + P, memory_dim), not projected

        Returns
        -------
        (B, HW, memory_dim)
        """
        return attend(query, torch.cat([placed.flatten(1, 2), unplaced], dim=1), value)


class _Layer(nn.Module):
    def __init__(self, dim: int, memory_dim: int, mlp_dim: int, cross_attention: type[RotaryAttention]) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(dim, dim)
        self.cross_attn_image = cross_attention(dim, memory_dim)
        self.linear1 = nn.Linear(dim, mlp_dim)
        self.linear2 = nn.Linear(mlp_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, rotation: Rotation, key_rotation: Rotation, maps: int
    ) -> Tensor:
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, normed, rotation, rotation, maps=1)
        x = x + self.cross_attn_image(self.norm2(x), key, value, rotation, key_rotation, maps)
        return x + self.linear2(functional.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """Condition an image embedding on spatial memories and object pointers. No dropout, also in training."""

    def __init__(
        self,
        dim: int,
        memory_dim: int,
        mlp_dim: int = 2048,
        layers: int = 4,
        cross_attention: type[RotaryAttention] = RotaryAttention,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(dim, memory_dim, mlp_dim, cross_attention) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, embedding: Tensor, memory: Tensor, memory_position: Tensor, maps: int, memory_rotation: Rotation
    ) -> Tensor:
        """Condition B embeddings.

        Parameters
        ----------
        embedding : (B, C, H, W)
        memory : (B, maps * N + P, memory_dim), the N tokens of each of `maps` spatial memories, then P pointer tokens
        memory_position : (B or 1, maps * N + P, memory_dim), added to the keys
        maps : number of spatial memories
        memory_rotation : rotary encoding (N, C / 2) of one memory's keys

        Returns
        -------
        (B, C, H, W)
        """
        channels, height, width = embedding.shape[1:]
        x = embedding + 0.1 * sine_encoding_2d(channels, height, width, embedding.device)
        x = x.flatten(2).transpose(1, 2)
        rotation = rotary_tables(channels, height, width, embedding.device)
        key = memory + memory_position
        for layer in self.layers:
            x = layer(x, key, memory, rotation, memory_rotation, maps)
        return self.norm(x).transpose(1, 2).unflatten(2, (height, width))
