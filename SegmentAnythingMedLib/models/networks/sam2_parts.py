"""SAM 2's networks cut into pieces that take and give tensors alone, for runtimes that compile such pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import rotary_tables, rotate, sine_encoding_2d
from .memory_attention import MemoryAttention, RotaryAttention, Rotation, halves, in_halves
from .prompt_encoder import PromptEmbedding
from .sam2_network import Sam2Network

NOTHING = -1e4
"""Added to a score, leaves a weight of 0 in every precision."""
_ROWS = 1024  # of queries at a time: at 1024 px and seven memories their scores are 118 MB


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
    """`MemoryAttention` of one object: every token of its memories has a rotation, and a weight in the softmax.

    So tokens of different memories need not be told apart, and tokens may be added that count for nothing: the number
    of tokens then seldom changes, and a program made for one number is twice as fast as one made for any.
    """

    def __init__(self, attention: MemoryAttention) -> None:
        super().__init__()
        self.attention = attention

    @staticmethod
    def fits(attention: MemoryAttention) -> bool:
        """Whether tokens of different memories may be treated alike; pooled attention needs them apart."""
        return all(type(layer.cross_attn_image) is RotaryAttention for layer in attention.layers)

    @staticmethod
    def arguments(
        embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: Rotation, loose: int = 0
    ) -> tuple[Tensor, ...]:
        """What `forward` takes, from what `MemoryAttention.forward` takes.

        Parameters
        ----------
        loose : tokens without a place that are filled up to, if there are fewer
        """
        cells, angles = rotation[0].shape
        unplaced = memory.shape[1] - maps * cells
        added = max(0, loose - unplaced)
        still = rotation[0].new_zeros(unplaced + added, angles)
        cos = torch.cat([rotation[0].repeat(maps, 1), still + 1])
        sin = torch.cat([rotation[1].repeat(maps, 1), still])
        memory, position = (functional.pad(part.float(), (0, 0, 0, added)) for part in (memory, position))
        bias = torch.zeros(memory.shape[1])
        bias[memory.shape[1] - added :] = NOTHING
        return embedding, memory, position, cos, sin, bias

    def forward(
        self, embedding: Tensor, memory: Tensor, position: Tensor, cos: Tensor, sin: Tensor, bias: Tensor
    ) -> tuple[Tensor]:
        """Condition (1, C, H, W) on M tokens.

        Parameters
        ----------
        embedding : (1, C, H, W)
        memory, position : (1, M, memory_dim)
        cos, sin : (M, C / 2), of the keys
        bias : (M,), added to the scores of the tokens
        """
        channels, height, width = embedding.shape[1:]
        x = embedding + 0.1 * sine_encoding_2d(channels, height, width, embedding.device)
        x = x.flatten(2).transpose(1, 2)
        rotation = rotary_tables(channels, height, width, embedding.device)
        keys = (memory + position).mT
        for layer in self.attention.layers:
            normed, cross = layer.norm1(x), layer.cross_attn_image
            x = x + layer.self_attn(normed, normed, normed, rotation, rotation, maps=1)
            query = rotate(in_halves(cross.q_proj, layer.norm2(x)), *rotation)
            turned = self._turned_keys(cross, keys, cos.mT, sin.mT)
            seen = torch.cat([_look(rows, turned, memory, bias) for rows in query.split(_ROWS, dim=1)], dim=1)
            x = x + cross.out_proj(cross.v_proj(seen))
            x = x + layer.linear2(functional.relu(layer.linear1(layer.norm3(x))))
        return (self.attention.norm(x).transpose(1, 2).unflatten(2, (height, width)),)

    @staticmethod
    def _turned_keys(cross: RotaryAttention, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(1, C, M): projected, rotated and turned in one; turning them afterwards takes a fifth of the attention."""
        weight, bias = halves(cross.k_proj)
        a, b = (weight @ keys + bias[:, None]).chunk(2, dim=1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)


def _look(query: Tensor, turned: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax(query * query.shape[-1] ** -0.5 @ turned + bias, dim=-1) @ value


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
