"""Memory encoder of SAM 2 (Ravi et al. 2024, arXiv:2408.00714): a slice and its mask become a memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import LayerNorm2d


class _MaskDownsampler(nn.Module):
    """Mask at full resolution to features at stride 16; each of four convolutions halves it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        for level in range(4):
            channels = 4**level
            self.encoder.append(nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1))
            self.encoder.append(LayerNorm2d(4 * channels))
            self.encoder.append(nn.GELU())
        self.encoder.append(nn.Conv2d(4**4, dim, kernel_size=1))

    def forward(self, mask: Tensor) -> Tensor:
        return self.encoder(mask)


class _ConvNextBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022, arXiv:2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        change = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(change)))
        return x + change.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """ConvNeXt blocks on (B, C, H, W)."""

    def __init__(self, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ConvNextBlock(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Image embedding and mask to a spatial memory."""

    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.mask_downsampler = _MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, memory_dim, kernel_size=1)

    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Encode B masks of one slice or of B slices.

        Parameters
        ----------
        embedding : (B or 1, C, S/16, S/16), as the image encoder gave it, not conditioned on memories
        mask : (B, 1, S, S), scaled to about -10 (outside) .. 10 (inside)

        Returns
        -------
        (B, memory_dim, S/16, S/16)
        """
        return self.out_proj(self.fuser(self.pix_feat_proj(embedding) + self.mask_downsampler(mask)))
