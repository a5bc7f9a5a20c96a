"""SAM 2's networks cut into pieces that take and give tensors alone, for runtimes that compile such pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import rotary_tables, sine_encoding_2d
from .memory_attention import MemoryAttention, RotaryAttention, Rotation, halves, in_halves
from .pooled_attention import POOL, POOLED_SHARE, PooledKeys, PooledScores
from .prompt_encoder import PromptEmbedding
from .sam2_network import Sam2Network

NOTHING = -1e4
"""Added to a score, leaves a weight of 0 in every precision."""
_MOST_TABLES = 2  # of rotations, 8 MB each at 512 px; the number of memories and pointers changes while they fill
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

    Parameters
    ----------
    attention : what is computed
    loose : tokens of pointers that are filled up to, if there are fewer
    """

    growing: ClassVar[Mapping[int, int]] = {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}
    """Of each input of `forward` that has no fixed length, the dimension."""
    fewest_maps = 1
    """With fewer memories it is not this that is computed."""

    def __init__(self, attention: MemoryAttention, loose: int) -> None:
        super().__init__()
        self.attention, self.loose = attention, loose
        self._tables: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    @classmethod
    def of(cls, attention: MemoryAttention, loose: int) -> MemoryAttentionPart:
        """The part for the attention's kind of cross-attention."""
        kind = PooledMemoryAttentionPart if isinstance(attention.layers[0].cross_attn_image, PooledScores) else cls
        return kind(attention, loose)

    def arguments(
        self, embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: Rotation
    ) -> tuple[Tensor, ...]:
        """What `forward` takes, from what `MemoryAttention.forward` takes, of one object."""
        tables = self._tables_for(maps, memory.shape[1] - maps * len(rotation[0]), rotation)
        keys, memory = (_filled(part, len(tables[2])) for part in (memory + position, memory))
        return embedding, keys, memory, *tables

    def _tables_for(self, maps: int, unplaced: int, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines, sines and bias that `forward` takes; kept, because they are as long as a memory."""
        key = maps, unplaced, *rotation[0].shape
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            still = rotation[0].new_zeros(max(unplaced, self.loose), rotation[0].shape[1])
            cos = torch.cat([rotation[0].repeat(maps, 1), still + 1])
            sin = torch.cat([rotation[1].repeat(maps, 1), still])
            self._tables[key] = cos, sin, _bias(len(cos), len(cos) - len(still) + unplaced)
        return self._tables[key]

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

        def look(cross: RotaryAttention, query: Tensor) -> Tensor:
            return _look(query, _turned(cross.k_proj, keys, cos, sin), memory, bias)

        return (_conditioned(self.attention, embedding, look),)


class PooledMemoryAttentionPart(MemoryAttentionPart):
    """`MemoryAttention` of one object with `PooledScores` or `PooledKeys`, which need the memories apart."""

    growing: ClassVar[Mapping[int, int]] = {1: 0, 2: 0}
    fewest_maps = 2

    def arguments(
        self, embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: Rotation
    ) -> tuple[Tensor, ...]:
        """What `forward` takes, from what `MemoryAttention.forward` takes, of one object."""
        cells, pointers = len(rotation[0]), memory.shape[1] - maps * len(rotation[0])
        bias = _bias(max(pointers, self.loose), pointers)
        split = [part.split([maps * cells, pointers], dim=1) for part in (memory + position, memory)]
        placed = [one.float().unflatten(1, (maps, cells))[0] for one, _ in split]
        return embedding, *placed, *(_filled(other, len(bias)) for _, other in split), bias

    def forward(
        self, embedding: Tensor, keys: Tensor, memory: Tensor, loose_keys: Tensor, loose: Tensor, bias: Tensor
    ) -> tuple[Tensor]:
        """Condition (1, C, H, W) on M maps of N cells and P pointer tokens.

        Parameters
        ----------
        embedding : (1, C, H, W)
        keys, memory : (M, N, memory_dim), with and without their positions
        loose_keys, loose : (1, P, memory_dim), the same of the pointers' tokens
        bias : (P,), added to the scores of these
        """
        rotation = rotary_tables(embedding.shape[1], *embedding.shape[2:], embedding.device)
        means = _merged(memory)
        values = torch.cat([means[None], loose], dim=1)

        def look(cross: RotaryAttention, query: Tensor) -> Tensor:
            in_keys = isinstance(cross, PooledKeys)
            merged = _merged(_turned(cross.k_proj, keys, *rotation)) + (POOLED_SHARE if in_keys else 0.0)
            key = torch.cat([merged[None], in_halves(cross.k_proj, loose_keys)], dim=1)
            share = torch.zeros_like(means[:, 0]) + (0.0 if in_keys else POOLED_SHARE)
            return _look(query, key, values, torch.cat([share, bias]))

        return (_conditioned(self.attention, embedding, look),)


def _conditioned(
    attention: MemoryAttention, embedding: Tensor, look: Callable[[RotaryAttention, Tensor], Tensor]
) -> Tensor:
    """`MemoryAttention.forward` of one object; ``look`` is what rotated queries (1, HW, C) see in a cross-attention."""
    channels, height, width = embedding.shape[1:]
    x = embedding + 0.1 * sine_encoding_2d(channels, height, width, embedding.device)
    x = x.flatten(2).transpose(1, 2)
    rotation = rotary_tables(channels, height, width, embedding.device)
    for layer in attention.layers:
        normed, own, cross = layer.norm1(x), layer.self_attn, layer.cross_attn_image
        query, key = (_turned(linear, normed, *rotation) for linear in (own.q_proj, own.k_proj))
        x = x + own.out_proj(_look(query, key, own.v_proj(normed)))
        x = x + cross.out_proj(cross.v_proj(look(cross, _turned(cross.q_proj, layer.norm2(x), *rotation))))
        x = x + layer.linear2(functional.relu(layer.linear1(layer.norm3(x))))
    return attention.norm(x).transpose(1, 2).unflatten(2, (height, width))


def _filled(tokens: Tensor, count: int) -> Tensor:
    """(1, M, C) in float32, with zeros up to ``count`` tokens."""
    return functional.pad(tokens.float(), (0, 0, 0, count - tokens.shape[1]))


def _bias(count: int, real: int) -> Tensor:
    """(count,) zeros, after the first ``real`` what leaves no weight."""
    bias = torch.zeros(count)
    bias[real:] = NOTHING
    return bias


def _merged(maps: Tensor) -> Tensor:
    """Means of 2 x 2 cells of square maps (M, N, C), (M * N / 4, C)."""
    side = math.isqrt(maps.shape[1])
    a, b = (maps.unflatten(1, (side, side))[:, first::POOL] for first in range(POOL))
    rows = a + b
    return ((rows[:, :, 0::POOL] + rows[:, :, 1::POOL]) / POOL**2).flatten(0, 2)


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
