"""SAM 2's networks cut into pieces that take and give tensors alone, for runtimes that compile such pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import rotary_tables, sine_encoding_2d
from .memory_attention import MemoryAttention, RotaryAttention, Rotation, halves
from .prompt_encoder import PromptEmbedding
from .sam2_network import Sam2Network

NOTHING = -1e4
"""Added to a score, leaves a weight of 0 in every precision."""
_ROWS = 256  # of queries at a time: near a CPU's cache (tiny at 512 px in bf16: 1024 rows 77 ms, 256 rows 71)


class ImageEncoderPart(nn.Module):
    """Pixels (1, 3, S, S) to the maps of `ImageFeatures`; those at strides 4 and 8 where the network has them."""

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.encoder = network.image_encoder
        self.decoder_convs = nn.ModuleList()
        if network.config.high_resolution:
            self.decoder_convs.extend([network.sam_mask_decoder.conv_s0, network.sam_mask_decoder.conv_s1])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.encoder(pixels, self.decoder_convs) if self.decoder_convs else (self.encoder(pixels),)


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
    def tables(rotation: Rotation, maps: int, unplaced: int, loose: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines, sines and bias that `forward` takes.

        Parameters
        ----------
        rotation : of the tokens of one map
        maps, unplaced : number of maps, and of tokens without a place
        loose : tokens without a place that are filled up to, if there are fewer
        """
        added = max(0, loose - unplaced)
        still = rotation[0].new_zeros(unplaced + added, rotation[0].shape[1])
        cos = torch.cat([rotation[0].repeat(maps, 1), still + 1])
        sin = torch.cat([rotation[1].repeat(maps, 1), still])
        bias = torch.zeros(len(cos))
        bias[len(cos) - added :] = NOTHING
        return cos, sin, bias

    @staticmethod
    def arguments(
        embedding: Tensor, memory: Tensor, position: Tensor, tables: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """What `forward` takes, from what `MemoryAttention.forward` takes and from `tables`."""
        missing = len(tables[2]) - memory.shape[1]
        keys, memory = (functional.pad(part.float(), (0, 0, 0, missing)) for part in (memory + position, memory))
        return embedding, keys, memory, *tables

    def forward(
        self, embedding: Tensor, keys: Tensor, memory: Tensor, cos: Tensor, sin: Tensor, bias: Tensor
    ) -> tuple[Tensor]:
        """Condition (1, C, H, W) on M tokens.

        Parameters
        ----------
        embedding : (1, C, H, W)
        keys, memory : (1, M, memory_dim), with and without their positions
        cos, sin : (M, C / 2), of the keys
        bias : (M,), added to the scores of the tokens
        """
        channels, height, width = embedding.shape[1:]
        x = embedding + 0.1 * sine_encoding_2d(channels, height, width, embedding.device)
        x = x.flatten(2).transpose(1, 2)
        rotation = rotary_tables(channels, height, width, embedding.device)
        for layer in self.attention.layers:
            normed, own, cross = layer.norm1(x), layer.self_attn, layer.cross_attn_image
            query, key = (_turned(linear, normed, *rotation) for linear in (own.q_proj, own.k_proj))
            x = x + own.out_proj(_look(query, key, own.v_proj(normed)))
            query = _turned(cross.q_proj, layer.norm2(x), *rotation)
            seen = _look(query, _turned(cross.k_proj, keys, cos, sin), memory, bias)
            x = x + cross.out_proj(cross.v_proj(seen))
            x = x + layer.linear2(functional.relu(layer.linear1(layer.norm3(x))))
        return (self.attention.norm(x).transpose(1, 2).unflatten(2, (height, width)),)


def _turned(linear: nn.Linear, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Projected and rotated; each half by a product of its own, because OpenVINO would copy them apart."""
    halved = zip(*(part.chunk(2) for part in halves(linear)), strict=True)
    a, b = (functional.linear(x, weight, bias) for weight, bias in halved)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _look(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Attention of single sequences (1, N, C), some rows at a time. Without the batch: OpenVINO is faster so."""
    turned, chunks = key[0].T, (query[0] * query.shape[-1] ** -0.5).split(_ROWS)
    return torch.cat([torch.softmax(rows @ turned + bias, dim=-1) @ value[0] for rows in chunks])[None]


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
    """A tracked slice and its mask logits (1, 1, S, S) to a memory that is not yet rounded.

    The logits are enlarged before: OpenVINO took 9 of 15 ms for that.
    """

    def __init__(self, network: Sam2Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: Tensor, mask_logits: Tensor, object_logits: Tensor) -> tuple[Tensor]:
        return (self.network.encode_memory(embedding, mask_logits, object_logits, from_prompt=False, dtype=None),)
