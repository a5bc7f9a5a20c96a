"""EdgeTAM: SAM 2 with a light trunk and memories of few tokens (Zhou et al. 2025, arXiv:2501.07256).

Everything but the trunk and the memories is SAM 2's. The module's keys are those of the original checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .layers import rotary_tables, sine_encoding_2d
from .memory_attention import Rotation
from .perceiver import SpatialPerceiver
from .repvit import RepVitConfig
from .sam2_network import Sam2Config, Sam2Network


@dataclass(frozen=True)
class EdgeTamConfig(Sam2Config):
    """Shape and rules of an EdgeTAM network; the defaults are those of the published checkpoint.

    Attributes
    ----------
    trunk : the RepViT trunk
    latents : memory tokens that look at the whole slice
    window_grid : the slice is split into this many windows a side, with one memory token each; `image_size` is a
        multiple of 16 times as many pixels
    """

    trunk: RepVitConfig = RepVitConfig()
    pointer_time_encoding: bool = False
    occlusion_embedding: bool = False
    memory_layers: int = 2
    latents: int = 256
    window_grid: int = 16

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % self.pixel_multiple:
            raise ValueError(f"image_size must be a positive multiple of {self.pixel_multiple}, got {self.image_size}.")

    @property
    def pixel_multiple(self) -> int:
        """What `image_size` is a multiple of: a window is whole cells of 16 pixels."""
        return 16 * self.window_grid


class EdgeTamNetwork(Sam2Network):
    """EdgeTAM's networks; a memory is (B, memory_dim, latents + window_grid**2), its tokens last."""

    def __init__(self, config: EdgeTamConfig) -> None:
        super().__init__(config)
        self.spatial_perceiver = SpatialPerceiver(config.memory_dim, config.latents, config.window_grid)

    def encode_memory(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        from_prompt: bool,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> Tensor:
        """Remember a slice and the mask found in it, see `Sam2Network.encode_memory`.

        Returns
        -------
        (B, memory_dim, latents + window_grid**2)
        """
        memory = super().encode_memory(embedding, mask_logits, object_logits, from_prompt, dtype=None)
        tokens = self.spatial_perceiver(memory).mT
        return tokens if dtype is None else tokens.to(dtype)

    def memory_position(self, height: int, width: int) -> Tensor:
        """Tokens of the whole have no position, those of windows the place of their window."""
        config, device = self.config, self.no_mem_embed.device
        nowhere = torch.zeros(1, config.latents, config.memory_dim, device=device)
        windows = sine_encoding_2d(config.memory_dim, config.window_grid, config.window_grid, device)
        return torch.cat([nowhere, windows.flatten(2).mT], dim=1)

    def memory_rotation(self, height: int, width: int) -> Rotation:
        """No turn for tokens of the whole; windows turn with their row and column in the grid of windows."""
        config, device = self.config, self.no_mem_embed.device
        cos, sin = rotary_tables(config.dim, config.window_grid, config.window_grid, device)
        still = cos.new_zeros(config.latents, cos.shape[1])
        return torch.cat([still + 1, cos]), torch.cat([still, sin])
