"""A network of the size of nnInteractive's, with random weights: what an interaction costs a model of whole blocks.

A residual encoder U-Net of six stages (Isensee et al. 2024, arXiv:2404.09556, "ResEnc L"; nnInteractive, Isensee et al.
2025, arXiv:2503.08373, is said to be one, with 8 input channels and blocks of 192^3 voxels). An approximation for its
time alone: instance norms, strides and channels as published there, not compared with its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES, BLOCKS, SIDE, CHANNELS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 192, 8


class _Step(nn.Sequential):
    def __init__(self, dim: int, dim_out: int, stride: int = 1) -> None:
        super().__init__(nn.Conv3d(dim, dim_out, 3, stride, 1), nn.InstanceNorm3d(dim_out, affine=True))


class _Block(nn.Module):
    def __init__(self, dim: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _Step(dim, dim_out, stride), _Step(dim_out, dim_out)
        skip: list[nn.Module] = [nn.AvgPool3d(stride)] if stride > 1 else []
        if dim != dim_out:
            skip.append(nn.Conv3d(dim, dim_out, 1, bias=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        changed = self.second(nn.functional.leaky_relu(self.first(x)))
        return nn.functional.leaky_relu(changed + self.skip(x))


class VolumeNetwork(nn.Module):
    """(B, 8, D, H, W) to logits (B, 2, D, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Step(CHANNELS, FEATURES[0])
        before = (FEATURES[0], *FEATURES)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(before[level] if first == 0 else dim, dim, 2 if level and first == 0 else 1)
                    for first in range(BLOCKS[level])
                )
            )
            for level, dim in enumerate(FEATURES)
        )
        pairs = list(zip(FEATURES[1:], FEATURES[:-1], strict=True))[::-1]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(deep, dim, 2, 2) for deep, dim in pairs)
        self.joins = nn.ModuleList(_Step(2 * dim, dim) for _, dim in pairs)
        self.head = nn.Conv3d(FEATURES[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = nn.functional.leaky_relu(self.stem(x)), []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        kept.pop()
        for up, join in zip(self.ups, self.joins, strict=True):
            x = nn.functional.leaky_relu(join(torch.cat([up(x), kept.pop()], dim=1)))
        return self.head(x)
