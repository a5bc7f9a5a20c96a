"""SAM 2 and 2.1: image encoder, prompts, masks and memory (Ravi et al. 2024, arXiv:2408.00714).

The module's keys are those of the original checkpoints. Nothing here keeps state: what a slice remembers is returned,
and the caller decides which memories a slice looks at.

Two paths share these methods. An image predictor (one slice, no tracking) calls `condition` without memories and
`encode_prompts` with what it has; SAM 2's video model does the same on a prompted slice, but where there is no click
it gives one padding point (`encode_no_clicks`), turns a mask prompt straight into the output (`use_mask_as_output`),
and passes every result through `DecodedMasks.suppress_absent`, which the image predictor does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fpn import ImageEncoder
from .hiera import HIERA_SIZES, HieraConfig
from .layers import MLP, rotary_tables, sine_encoding_1d, sine_encoding_2d
from .mask_decoder import MaskDecoder, pick
from .memory_attention import MemoryAttention, Rotation
from .memory_encoder import MemoryEncoder
from .pooled_attention import CrossAttention
from .prompt_encoder import PromptEmbedding, PromptEncoder

ABSENT_LOGIT = -1024.0
MASK_SCALE, MASK_BIAS = 20.0, -10.0  # masks of 0..1 enter the memory encoder as -10..10


@dataclass(frozen=True)
class Sam2Config:
    """Shape and rules of a SAM 2 network.

    Attributes
    ----------
    trunk : the Hiera trunk
    image_size : side S of the model's square input in pixels, a multiple of 32
    pointer_time_encoding, occlusion_embedding : both true in SAM 2.1, both false in SAM 2.0
    memory_slots : rows of the time table: prompted slices, and tracked ones 1 to `memory_slots` - 1 slices away
    max_pointers : object pointers a slice may look at
    multimask_clicks : smallest and largest number of points (box corners count) that ask for three candidates
    dynamic_multimask : in evaluation an unstable single mask gives way to the best of three
    high_resolution : the mask decoder takes maps at strides 4 and 8
    cross_attention : how a slice looks at its memories; not told by a checkpoint's keys
    """

    trunk: HieraConfig
    image_size: int = 1024
    pointer_time_encoding: bool = True
    occlusion_embedding: bool = True
    dim: int = 256
    memory_dim: int = 64
    memory_layers: int = 4
    memory_slots: int = 7
    max_pointers: int = 16
    mlp_dim: int = 2048
    decoder_heads: int = 8
    multimask_clicks: tuple[int, int] = (0, 1)
    dynamic_multimask: bool = True
    high_resolution: bool = True
    cross_attention: CrossAttention = CrossAttention.FULL

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % 32:
            raise ValueError(f"image_size must be a positive multiple of 32, got {self.image_size}.")

    @classmethod
    def released(cls, size: str, version: str = "2.1", image_size: int = 1024) -> Sam2Config:
        """Configuration of a released checkpoint: tiny, small, base_plus or large; version "2.0" or "2.1"."""
        if size not in HIERA_SIZES:
            raise ValueError(f"size must be one of {', '.join(HIERA_SIZES)}, got {size!r}.")
        if version not in ("2.0", "2.1"):
            raise ValueError(f"version must be '2.0' or '2.1', got {version!r}.")
        recent = version == "2.1"
        return cls(HIERA_SIZES[size], image_size, pointer_time_encoding=recent, occlusion_embedding=recent)

    @property
    def mask_size(self) -> int:
        """Side of mask logits, a quarter of the input's."""
        return self.image_size // 4

    def build_image_encoder(self) -> nn.Module:
        """The trunk with its neck."""
        return ImageEncoder(self.trunk.build(), self.trunk.dims, self.dim)

    def build_memory_attention(self) -> MemoryAttention:
        """What conditions a slice on its memories."""
        return MemoryAttention(self.dim, self.memory_dim, self.mlp_dim, self.memory_layers, self.cross_attention.layer)

    def wants_multimask(self, clicks: int) -> bool:
        """Whether SAM 2 asks for three candidates: for no click (tracking) and for one, not for a box or more."""
        least, most = self.multimask_clicks
        return least <= clicks <= most


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder knows of B slices.

    Attributes
    ----------
    stride4 : (B, C/8, S/4, S/4) and
    stride8 : (B, C/4, S/8, S/8), as the mask decoder adds them; None in a network without them
    embedding : (B, C, S/16, S/16), not conditioned on any memory
    """

    stride4: Tensor | None
    stride8: Tensor | None
    embedding: Tensor

    @property
    def high_resolution(self) -> tuple[Tensor, Tensor] | None:
        """The two maps `decode_masks` takes."""
        return None if self.stride4 is None or self.stride8 is None else (self.stride4, self.stride8)

    @property
    def nbytes(self) -> int:
        """Memory held by the maps."""
        return sum(part.nbytes for part in (*(self.high_resolution or ()), self.embedding))

    def row(self, index: int) -> ImageFeatures:
        """Of one slice, batch 1."""
        maps = (self.stride4, self.stride8, self.embedding)
        return ImageFeatures(*(None if part is None else part[index : index + 1] for part in maps))


@dataclass(frozen=True)
class DecodedMasks:
    """M candidate masks of B objects, float32 but for the pointers.

    Attributes
    ----------
    mask_logits : (B, M, S/4, S/4), above 0 inside
    iou : (B, M), predicted quality in 0..1
    object_logits : (B, 1), above 0 where the object is in the slice
    pointers : (B, M, C), object pointers
    """

    mask_logits: Tensor
    iou: Tensor
    object_logits: Tensor
    pointers: Tensor

    def best(self) -> DecodedMasks:
        """The candidate of highest predicted quality alone, M = 1."""
        index = self.iou.argmax(dim=1)
        return replace(
            self,
            mask_logits=pick(self.mask_logits, index),
            iou=pick(self.iou, index),
            pointers=pick(self.pointers, index),
        )

    def row(self, index: int) -> DecodedMasks:
        """Of one object, batch 1."""
        rows = (part[index : index + 1] for part in (self.mask_logits, self.iou, self.object_logits, self.pointers))
        return DecodedMasks(*rows)

    def to(self, device: torch.device) -> DecodedMasks:
        """The same on a device."""
        parts = (self.mask_logits, self.iou, self.object_logits, self.pointers)
        return DecodedMasks(*(part.to(device) for part in parts))

    def suppress_absent(self) -> DecodedMasks:
        """Masks of objects that are not in the slice replaced by -1024, as SAM 2's video model does."""
        present = self.object_logits[:, :, None, None] > 0
        return replace(self, mask_logits=torch.where(present, self.mask_logits, ABSENT_LOGIT))


@dataclass(frozen=True, eq=False)
class Lookback:
    """What B objects look back on, in tensors alone.

    Attributes
    ----------
    maps : M memories, (B, memory_dim, S/16, S/16) each
    rows : (M,) int64, the row of the time table for each
    pointers : (B, P, C), or None
    times : (P,) float32, the pointers' distances as a part of the largest, or None
    """

    maps: tuple[Tensor, ...]
    rows: Tensor
    pointers: Tensor | None = None
    times: Tensor | None = None


class Sam2Network(nn.Module):
    """SAM 2's networks; every method is batched and differentiable.

    Methods that take maps of an image accept batch 1 for prompts of several objects in one slice.

    Parameters
    ----------
    config : shape and rules; `Sam2Config.released` for the published checkpoints
    """

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.config = config
        dim, memory_dim = config.dim, config.memory_dim
        self.image_encoder = config.build_image_encoder()
        self.sam_prompt_encoder = PromptEncoder(dim, config.image_size)
        self.sam_mask_decoder = MaskDecoder(
            dim, config.decoder_heads, config.mlp_dim, config.dynamic_multimask, config.high_resolution
        )
        self.memory_attention = config.build_memory_attention()
        self.memory_encoder = MemoryEncoder(dim, memory_dim)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj = MLP(dim, dim, dim, dim)
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))  # in every checkpoint, used by none
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.memory_slots, 1, 1, memory_dim))
        if config.pointer_time_encoding:
            self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim)
        if config.occlusion_embedding:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory_dim))

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode slices.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised as the model card says
        """
        self._check(pixels, "pixels", 3, self.config.image_size)
        decoder = self.sam_mask_decoder
        return ImageFeatures(*self.image_encoder(pixels, (decoder.conv_s0, decoder.conv_s1)))

    def encode_prompts(
        self, points: Tensor | None, labels: Tensor | None, mask_logits: Tensor | None = None
    ) -> PromptEmbedding:
        """Encode the prompts of B objects.

        Parameters
        ----------
        points : (B, N, 2) float, (x, y) in model pixels 0..S, or None
        labels : (B, N) int: 1 positive, 0 negative, 2 and 3 first and second box corner, -1 padding; None with points
        mask_logits : (B, 1, S/4, S/4) float, a previous prediction (clamped to -32..32 by SAM 2), or None
        """
        if (points is None) != (labels is None) or (points is not None and points.shape[:2] != labels.shape):
            raise ValueError("points and labels must come together, of shapes (B, N, 2) and (B, N).")
        if mask_logits is not None:
            self._check(mask_logits, "mask_logits", 1, self.config.image_size // 4)
        return self.sam_prompt_encoder(points, labels, mask_logits)

    def encode_no_clicks(self, batch: int, mask_logits: Tensor | None = None) -> PromptEmbedding:
        """Prompts of a slice without clicks, as SAM 2's video model encodes them: one padding point per object."""
        device = self.no_mem_embed.device
        points = torch.zeros(batch, 1, 2, device=device)
        return self.encode_prompts(points, torch.full((batch, 1), -1, device=device), mask_logits)

    def decode_masks(
        self,
        embedding: Tensor,
        high_resolution: tuple[Tensor, Tensor] | None,
        prompts: PromptEmbedding,
        multimask: bool,
    ) -> DecodedMasks:
        """Predict masks of B objects; absent objects keep their logits, but have the pointer of absence.

        Parameters
        ----------
        embedding : (B or 1, C, S/16, S/16) from `condition`
        high_resolution : `ImageFeatures.high_resolution`
        prompts : from `encode_prompts` or `encode_no_clicks`
        multimask : three candidates or one, see `Sam2Config.wants_multimask` and `MaskDecoder.forward`
        """
        position = self.sam_prompt_encoder.grid_encoding(*embedding.shape[2:])
        output = self.sam_mask_decoder(embedding, position, high_resolution, prompts, multimask)
        return self.decoded(output.mask_logits, output.iou, output.object_logits, self.obj_ptr_proj(output.tokens))

    def decoded(self, mask_logits: Tensor, iou: Tensor, object_logits: Tensor, pointers: Tensor) -> DecodedMasks:
        """What the decoder found, with the pointer of absence where the object is not there."""
        pointers = self._mark_absent(pointers, object_logits > 0)
        return DecodedMasks(mask_logits.float(), iou.float(), object_logits.float(), pointers)

    def use_mask_as_output(self, features: ImageFeatures, mask: Tensor) -> DecodedMasks:
        """Take a confirmed mask as the result of a slice, with the object pointer that the decoder makes of it.

        Parameters
        ----------
        features : of the slice, not conditioned
        mask : (B, 1, S, S) bool, or 0 and 1

        Returns
        -------
        DecodedMasks
            M = 1; logits of -10 and 10, bilinear with antialiasing; quality 1; presence -10 or 10
        """
        self._check(mask, "mask", 1, self.config.image_size)
        mask = mask.to(self.no_mem_embed.dtype)
        prompts = self.encode_no_clicks(len(mask), self.mask_downsample(mask))
        decoded = self.decode_masks(features.embedding, features.high_resolution, prompts, multimask=False)
        present = (mask > 0).flatten(1).any(dim=1, keepdim=True)
        size = (self.config.image_size // 4, self.config.image_size // 4)
        logits = mask.float() * MASK_SCALE + MASK_BIAS
        logits = functional.interpolate(logits, size=size, mode="bilinear", antialias=True)
        return DecodedMasks(
            logits,
            torch.ones_like(decoded.iou),
            present * MASK_SCALE + MASK_BIAS,
            self._mark_absent(decoded.pointers, present),
        )

    def encode_memory(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        from_prompt: bool,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> Tensor:
        """Remember a slice and the mask found in it.

        Parameters
        ----------
        embedding : (B or 1, C, S/16, S/16), `ImageFeatures.embedding`, not conditioned
        mask_logits : (B, 1, h, w), suppressed where the object is absent; of any size, resampled to S bilinearly
        object_logits : (B, 1)
        from_prompt : the slice was prompted, its mask enters as 0 or 1. SAM 2 does so in evaluation only; training
            passes False.
        dtype : SAM 2's video predictor rounds memories to bfloat16; None keeps the precision, for training

        Returns
        -------
        (B, memory_dim, S/16, S/16)
        """
        logits = self.enlarged(mask_logits)
        mask = (logits > 0).float() if from_prompt else logits.sigmoid()
        memory = self.memory_encoder(embedding, (mask * MASK_SCALE + MASK_BIAS).to(embedding.dtype))
        if self.config.occlusion_embedding:
            absent = (object_logits <= 0).to(memory.dtype)[:, :, None, None]
            memory = memory + absent * self.no_obj_embed_spatial[:, :, None, None]
        return memory if dtype is None else memory.to(dtype)

    def enlarged(self, mask_logits: Tensor) -> Tensor:
        """Mask logits (B, 1, h, w) at the input's resolution, (B, 1, S, S) float32."""
        size, logits = (self.config.image_size, self.config.image_size), mask_logits.float()
        if logits.shape[2:] == size:
            return logits
        return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def condition(
        self,
        embedding: Tensor,
        memories: Sequence[tuple[Tensor, int]],
        pointers: Sequence[tuple[Tensor, float]],
        pointer_range: int | None = None,
    ) -> Tensor:
        """Let B objects in a slice look at their memories.

        Parameters
        ----------
        embedding : (B or 1, C, S/16, S/16), `ImageFeatures.embedding`
        memories : (memory, time slot) pairs from `encode_memory`; slot 0 is a prompted slice, slot d a tracked slice d
            slices back in the direction of tracking, 1 to `memory_slots` - 1. Without memories the embedding is
            marked as such, and pointers are not looked at.
        pointers : (pointer, distance) pairs; (B, C) each, distance in slices, positive back in the direction of
            tracking
        pointer_range : distance that is encoded as 1, by default `max_pointers` - 1. SAM 2 takes
            min(number of slices, `max_pointers`) - 1. Not used by SAM 2.0.

        Returns
        -------
        (B or 1, C, S/16, S/16)
        """
        attention, times = self.memory_attention, self.maskmem_tpos_enc
        return self._look_back(attention, times, embedding, memories, pointers, pointer_range)

    def _look_back(
        self,
        attention: MemoryAttention,
        slot_times: Tensor,
        embedding: Tensor,
        memories: Sequence[tuple[Tensor, int]],
        pointers: Sequence[tuple[Tensor, float]],
        pointer_range: int | None,
    ) -> Tensor:
        """`condition` with a memory attention and its table of time encodings."""
        if not memories:
            return embedding + self.no_mem_embed.view(1, -1, 1, 1)
        return self._attend(attention, slot_times, embedding, self.lookback(memories, pointers, pointer_range))

    def lookback(
        self,
        memories: Sequence[tuple[Tensor, int]],
        pointers: Sequence[tuple[Tensor, float]],
        pointer_range: int | None = None,
    ) -> Lookback:
        """Memories and pointers, described as for `condition`, as tensors on their device."""
        for _, slot in memories:
            if not 0 <= slot < self.config.memory_slots:
                raise ValueError(f"time slots must be 0 to {self.config.memory_slots - 1}, got {slot}.")
        maps, device = tuple(memory for memory, _ in memories), memories[0][0].device
        # Row d - 1 of the time table is the slice at distance d; prompted slices have the last row, -1.
        rows = _sent([(slot - 1) % self.config.memory_slots for _, slot in memories], torch.long, device)
        if not pointers:
            return Lookback(maps, rows)
        longest = max(1, self.config.max_pointers - 1 if pointer_range is None else pointer_range)
        times = _sent([distance / longest for _, distance in pointers], torch.float32, device)
        return Lookback(maps, rows, torch.stack([pointer for pointer, _ in pointers], dim=1), times)

    def track(self, features: ImageFeatures, lookback: Lookback) -> DecodedMasks:
        """A slice without prompts, in tensors only: B objects are found by what they look back on.

        The same as `condition`, `encode_no_clicks` and `decode_masks`; nothing in it waits for the device, so that it
        can be compiled or recorded.
        """
        embedding = self._attend(self.memory_attention, self.maskmem_tpos_enc, features.embedding, lookback)
        prompts, multimask = self.encode_no_clicks(len(embedding)), self.config.wants_multimask(0)
        return self.decode_masks(embedding, features.high_resolution, prompts, multimask)

    def _attend(self, attention: MemoryAttention, slot_times: Tensor, embedding: Tensor, lookback: Lookback) -> Tensor:
        dtype, grid = embedding.dtype, self.memory_position(*embedding.shape[2:])
        tokens = [memory.to(dtype).flatten(2).mT for memory in lookback.maps]
        positions = [(grid + slot_times[lookback.rows, 0]).flatten(0, 1)[None]]
        if lookback.pointers is not None:
            split = self.config.dim // self.config.memory_dim
            tokens.append(lookback.pointers.to(dtype).unflatten(2, (split, -1)).flatten(1, 2))
            positions.append(self._pointer_times(lookback.times).repeat_interleave(split, dim=0)[None])
        return attention(
            embedding.expand(len(tokens[0]), -1, -1, -1),
            torch.cat(tokens, dim=1),
            torch.cat(positions, dim=1),
            len(lookback.maps),
            self.memory_rotation(*embedding.shape[2:]),
        )

    def memory_position(self, height: int, width: int) -> Tensor:
        """Position encodings (1, N, memory_dim) of the N tokens of one memory of an embedding's height and width."""
        return sine_encoding_2d(self.config.memory_dim, height, width, self.no_mem_embed.device).flatten(2).mT

    def memory_rotation(self, height: int, width: int) -> Rotation:
        """Rotary encoding of the keys of one memory's tokens."""
        return rotary_tables(self.config.dim, height, width, self.no_mem_embed.device)

    def _pointer_times(self, times: Tensor) -> Tensor:
        """Position encodings (P, memory_dim) of object pointers by times, 1 the farthest; zeros before SAM 2.1."""
        if not self.config.pointer_time_encoding:
            return torch.zeros(len(times), self.config.memory_dim, device=times.device)
        return self.obj_ptr_tpos_proj(sine_encoding_1d(times, self.config.dim).to(self.obj_ptr_tpos_proj.weight.dtype))

    def _mark_absent(self, pointers: Tensor, present: Tensor) -> Tensor:
        """Pointers (B, M, C), where the object is absent (B, 1) the learnt pointer of absence."""
        return torch.where(present[:, :, None], pointers, self.no_obj_ptr.to(pointers.dtype))

    def _check(self, maps: Tensor, name: str, channels: int, side: int) -> None:
        if maps.ndim != 4 or tuple(maps.shape[1:]) != (channels, side, side):
            raise ValueError(f"{name} must have shape (B, {channels}, {side}, {side}), got {tuple(maps.shape)}.")


def _sent(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers on the device, without waiting for what it still computes."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
