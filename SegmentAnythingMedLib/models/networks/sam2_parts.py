"""SAM 2's networks cut into pieces that take and give tensors alone, for runtimes that compile such pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .memory_attention import MemoryAttention, RotaryAttention
from .prompt_encoder import PromptEmbedding
from .sam2_network import Sam2Network


class ImageEncoderPart(nn.Module):
    """Pixels (1, 3, S, S) to the maps of `ImageFeatures`; those at strides 4 and 8 where the network has them."""

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.encoder = network.image_encoder
        self.decoder_convs = nn.ModuleList()
        if network.config.high_resolution:
            self.decoder_convs.extend([network.sam_mask_decoder.conv_s0, network.sam_mask_decoder.conv_s1])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.encoder(pixels)
        *fine, embedding = (maps,) if isinstance(maps, Tensor) else maps
        return (*(conv(stage) for conv, stage in zip(self.decoder_convs, fine, strict=False)), embedding)


class MemoryAttentionPart(nn.Module):
    """`MemoryAttention` with one rotation for each token of all memories: none for tokens without a place."""

    def __init__(self, attention: MemoryAttention) -> None:
        super().__init__()
        self.attention = attention

    @staticmethod
    def fits(attention: MemoryAttention) -> bool:
        """Whether tokens of different memories may be treated alike; pooled attention needs them apart."""
        return all(type(layer.cross_attn_image) is RotaryAttention for layer in attention.layers)

    @staticmethod
    def arguments(
        embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """What `forward` takes, from what `MemoryAttention.forward` takes."""
        cos, sin = (table.repeat(maps, 1) for table in rotation)
        loose = memory.shape[1] - len(cos)
        still = cos.new_zeros(loose, cos.shape[1])
        cos, sin = torch.cat([cos, still + 1]), torch.cat([sin, still])
        return embedding, memory, position, cos, sin

    def forward(self, embedding: Tensor, memory: Tensor, position: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor]:
        """Condition (1, C, H, W) on (1, M, memory_dim) tokens, with positions and cosines and sines (M, C / 2)."""
        return (self.attention(embedding, memory, position, 1, (cos, sin)),)


class DecoderPart(nn.Module):
    """Three candidates and no mask to refine: a tracked slice, or one click."""

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.prompt_encoder, self.decoder = network.sam_prompt_encoder, network.sam_mask_decoder
        self.pointer = network.obj_ptr_proj

    def forward(
        self, embedding: Tensor, sparse: Tensor, dense: Tensor, *high_resolution: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mask logits, quality, presence, and object pointers as if the object were there."""
        position = self.prompt_encoder.grid_encoding(*embedding.shape[2:])
        prompts = PromptEmbedding(sparse, dense)
        found = self.decoder(embedding, position, high_resolution or None, prompts, multimask=True)
        return found.mask_logits, found.iou, found.object_logits, self.pointer(found.tokens)


class MemoryEncoderPart(nn.Module):
    """A tracked slice and its mask logits to a memory that is not yet rounded."""

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: Tensor, mask_logits: Tensor, object_logits: Tensor) -> tuple[Tensor]:
        return (self.network.encode_memory(embedding, mask_logits, object_logits, from_prompt=False, dtype=None),)
