"""EfficientTAM's efficient cross-attention (Xiong et al. 2024, arXiv:2411.18933): memories of 2 x 2 cells merged.

Memory tokens of neighbouring cells are alike, so 2 x 2 of them are replaced by their mean: a quarter of the keys and
values. Weights and keys of a checkpoint are those of the full attention, so a file does not say which it was made
for: its card does.

The values are pooled before they are projected, which is the same: both are linear.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from .memory_attention import RotaryAttention, attend

POOL = 2
POOLED_SHARE = math.log(POOL * POOL)
"""A mean stands for this many cells, so its weight in the softmax is that of all."""


class PooledScores(RotaryAttention):
    """The means' scores are raised by the logarithm of how many cells they stand for (published as ``_1``)."""

    def mix(self, query: Tensor, placed: Tensor, unplaced: Tensor, value: Tensor) -> Tensor:
        """See `RotaryAttention.mix`; a single memory is attended to in full, as published."""
        if placed.shape[1] == 1:
            return super().mix(query, placed, unplaced, value)
        pooled, seen = self._pooled(placed, unplaced, value)
        bias = pooled.new_zeros(pooled.shape[1] + unplaced.shape[1])
        bias[: pooled.shape[1]] = POOLED_SHARE
        return attend(query, torch.cat([pooled, unplaced], dim=1), seen, bias)

    @staticmethod
    def _pooled(placed: Tensor, unplaced: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the placed keys (B, maps * N / 4, C), and the values that belong to them and to the others."""
        maps, cells = placed.shape[1:3]
        values, others = value.split([maps * cells, unplaced.shape[1]], dim=1)
        means = _pool(values.unflatten(1, (maps, cells)))
        return _pool(placed).flatten(1, 2), torch.cat([means.flatten(1, 2), others], dim=1)


class PooledKeys(PooledScores):
    """The logarithm is added to every channel of the means instead, one product less to correct (``_2``)."""

    def mix(self, query: Tensor, placed: Tensor, unplaced: Tensor, value: Tensor) -> Tensor:
        """See `RotaryAttention.mix`; a single memory is attended to in full, as published."""
        if placed.shape[1] == 1:
            return super().mix(query, placed, unplaced, value)
        pooled, seen = self._pooled(placed, unplaced, value)
        return attend(query, torch.cat([pooled + POOLED_SHARE, unplaced], dim=1), seen)


class CrossAttention(Enum):
    """How a slice looks at its memories; the value is what a card says."""

    FULL = "full"
    POOLED_SCORES = "pooled-1"
    POOLED_KEYS = "pooled-2"

    @classmethod
    def named(cls, name: str) -> CrossAttention:
        """As a card says it; `ValueError` if no way is called so."""
        known = [each.value for each in cls]
        if name not in known:
            raise ValueError(f"cross_attention must be one of {', '.join(known)}, got {name!r}.")
        return cls(name)

    @property
    def layer(self) -> type[RotaryAttention]:
        """The class of attention."""
        return {"full": RotaryAttention, "pooled-1": PooledScores, "pooled-2": PooledKeys}[self.value]


def _pool(tokens: Tensor) -> Tensor:
    """Means over 2 x 2 cells: (B, maps, N, C) of square maps to (B, maps, N / 4, C)."""
    batch, maps, cells, _ = tokens.shape
    side = math.isqrt(cells)
    images = tokens.flatten(0, 1).mT.unflatten(2, (side, side))
    return functional.avg_pool2d(images, POOL).flatten(2).mT.unflatten(0, (batch, maps))
