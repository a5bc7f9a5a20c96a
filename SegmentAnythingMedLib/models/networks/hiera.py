"""Hiera, the hierarchical vision transformer under SAM 2 (Ryali et al. 2023, arXiv:2306.00989)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from .window_block import PatchEmbed, WindowBlock, from_windows, to_windows


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


class Hiera(nn.Module):
    """Image trunk of SAM 2, with absolute window position embedding (Bolya et al. 2023, arXiv:2311.05613)."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.dim, kernel=7, stride=4, padding=3)
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
            self.blocks.append(WindowBlock(dim, config.dims[stage], config.heads * 2**stage, window, pool=starts))
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
        height, width = x.shape[1:3]
        x = x + self._position(height, width)
        stages, cut = [], 0  # size of the windows x is cut into; 0 while it is whole
        for index, block in enumerate(self.blocks):
            if block.window != cut:
                x, cut = from_windows(x, height, width) if cut else x, 0
                if block.window and not height % block.window and not width % block.window:
                    x, cut = to_windows(x, block.window), block.window
            x = block(x, cut > 0)
            if block.pool:  # windows are halved, too: those of the next stage, where it has half as large ones
                height, width, cut = height // 2, width // 2, cut // 2
            if index in self._ends:
                stages.append((from_windows(x, height, width) if cut else x).permute(0, 3, 1, 2))
        return stages
