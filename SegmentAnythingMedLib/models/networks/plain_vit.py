"""The plain vision transformer under EfficientTAM and its neck (Xiong et al. 2024, arXiv:2411.18933).

A ViT (Dosovitskiy et al. 2021) whose blocks attend within windows except every third (Li et al. 2022, ViTDet,
arXiv:2203.16527). There is one map, at stride 16: no pyramid.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import LayerNorm2d
from .window_block import PatchEmbed, WindowBlock


@dataclass(frozen=True)
class PlainVitConfig:
    """Shape of a plain trunk.

    Attributes
    ----------
    dim, heads, depth : channels, attention heads and blocks
    global_blocks : blocks that attend to the whole slice; the others attend within windows
    window : tokens along the side of a window
    patch : pixels along the side of a patch
    trained_grid : tokens along the side of the table of positions; other grids interpolate it
    """

    dim: int
    heads: int
    depth: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window: int = 14
    patch: int = 16
    trained_grid: int = 14

    def build(self) -> PlainVit:
        """A trunk of this shape."""
        return PlainVit(self)


PLAIN_VIT_SIZES: Mapping[str, PlainVitConfig] = MappingProxyType(
    {"ti": PlainVitConfig(dim=192, heads=3), "s": PlainVitConfig(dim=384, heads=6)}
)


class PlainVit(nn.Module):
    """Pixels (B, 3, S, S) to one map (B, dim, S/16, S/16)."""

    def __init__(self, config: PlainVitConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.dim, kernel=config.patch, stride=config.patch)
        # The first row belongs to the class token of pretraining; no trunk of EfficientTAM has that token.
        self.pos_embed = nn.Parameter(torch.zeros(1, config.trained_grid**2 + 1, config.dim))
        windows = [0 if index in config.global_blocks else config.window for index in range(config.depth)]
        self.blocks = nn.ModuleList(
            WindowBlock(config.dim, config.dim, config.heads, window, pool=False) for window in windows
        )

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed(pixels)
        x = x + self._position(*x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)

    def _position(self, height: int, width: int) -> Tensor:
        """(1, height, width, dim), bicubic."""
        table = self.pos_embed[:, 1:]
        side = math.isqrt(table.shape[1])
        table = table.unflatten(1, (side, side))
        if (height, width) == (side, side):
            return table
        resized = functional.interpolate(table.permute(0, 3, 1, 2), size=(height, width), mode="bicubic")
        return resized.permute(0, 2, 3, 1)


class PlainNeck(nn.Module):
    """One map to `dim` channels: 1 x 1 and 3 x 3 convolutions, each normalised."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        steps = OrderedDict(
            conv_1x1=nn.Conv2d(channels, dim, kernel_size=1, bias=False),
            norm_0=LayerNorm2d(dim),
            conv_3x3=nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False),
            norm_1=LayerNorm2d(dim),
        )
        self.convs = nn.ModuleList([nn.Sequential(steps)])

    def forward(self, x: Tensor) -> Tensor:
        return self.convs[0](x)


class PlainImageEncoder(nn.Module):
    """A plain trunk and its neck: pixels (B, 3, S, S) to one map (B, dim, S/16, S/16)."""

    def __init__(self, trunk: PlainVitConfig, dim: int) -> None:
        super().__init__()
        self.trunk = trunk.build()
        self.neck = PlainNeck(trunk.dim, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.neck(self.trunk(pixels))
