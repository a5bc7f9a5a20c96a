"""Prompt encoder of SAM (Kirillov et al. 2023, arXiv:2304.02643), shared by SAM 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d


@dataclass(frozen=True)
class PromptEmbedding:
    """Encoded prompts.

    Attributes
    ----------
    sparse : (B, N, C), one token per point
    dense : (B, C, S/16, S/16), or (B, C, 1, 1) without a mask; added to the image embedding
    """

    sparse: Tensor
    dense: Tensor


class FourierEncoding(nn.Module):
    """Random Fourier features of points in the unit square (Tancik et al. 2020, arXiv:2006.10739)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """Encode points (..., 2) as (..., channels), in float32."""
        # Products instead of a matmul: autocast would round the coordinates to bf16, 2 to 4 pixels at 512.
        across, down = self.positional_encoding_gaussian_matrix.float()
        x, y = (2 * xy.float() - 1).split(1, dim=-1)
        angles = 2 * math.pi * (x * across + y * down)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Points, box corners and a low-resolution mask to embeddings of the mask decoder."""

    def __init__(self, dim: int, image_size: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.image_size = image_size
        self.pe_layer = FourierEncoding(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def grid_encoding(self, height: int, width: int) -> Tensor:
        """Encoding of the cell centres of a grid, (1, C, height, width)."""
        device = self.no_mask_embed.weight.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self.pe_layer(xy).permute(2, 0, 1)[None]

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """One token per point: its position and its label; a padding point has no position.

        Parameters
        ----------
        points : (B, N, 2) float, (x, y) in model pixels, pixel centres at integers
        labels : (B, N) int: 1 positive, 0 negative, 2 and 3 first and second box corner, -1 padding

        Returns
        -------
        (B, N, C)
        """
        table = torch.cat([self.not_a_point_embed.weight, *(e.weight for e in self.point_embeddings)])
        positions = self.pe_layer((points + 0.5) / self.image_size)
        return torch.where((labels == -1)[..., None], 0.0, positions) + table[labels.long() + 1]

    def forward(self, points: Tensor | None, labels: Tensor | None, mask_logits: Tensor | None) -> PromptEmbedding:
        """Embed prompts; after the points follows one padding token, as SAM puts it when no separate box is given.

        Parameters
        ----------
        points, labels : see `embed_points`; None for no point token at all
        mask_logits : (B, 1, S/4, S/4) float, or None
        """
        if mask_logits is not None:
            dense = self.mask_downscaling(mask_logits)
        else:
            batch = 1 if points is None else len(points)
            dense = self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, 1, 1)
        if points is None:
            return PromptEmbedding(dense.new_empty(len(dense), 0, dense.shape[1]), dense)
        padding = points.new_zeros(len(points), 1, 2), labels.new_full((len(labels), 1), -1)
        sparse = self.embed_points(torch.cat([points, padding[0]], dim=1), torch.cat([labels, padding[1]], dim=1))
        return PromptEmbedding(sparse, dense)
