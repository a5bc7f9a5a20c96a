"""SAM 3's tracker (arXiv:2511.16719) by the parts of the package transformers, called as `Sam2Network` is.

Nothing is fetched: the network is built from numbers and filled from a file. transformers' own video session is not
used. Where it departs from the published source (https://github.com/facebookresearch/sam3) this follows the source:
a mask prompt keeps its full resolution and gives the pointer of the single mask.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import (
    Sam3TrackerVideoConfig,
)
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoModel

from .layers import sine_encoding_1d
from .prompt_encoder import PromptEmbedding
from .sam2_network import MASK_BIAS, MASK_SCALE, DecodedMasks, ImageFeatures

PUBLISHED_SIZE = 1008


@dataclass(frozen=True)
class Sam3Config:
    """What the engine asks of the network's shape.

    Attributes
    ----------
    image_size : side S of the square input in pixels
    mask_size : side of mask logits, four times that of the grid of patches
    memory_slots, max_pointers : as in `Sam2Config`
    multimask_clicks : smallest and largest number of points that ask for three candidates
    """

    image_size: int
    mask_size: int
    memory_slots: int
    max_pointers: int
    multimask_clicks: tuple[int, int]

    def wants_multimask(self, clicks: int) -> bool:
        """Whether three candidates are asked for."""
        least, most = self.multimask_clicks
        return least <= clicks <= most


def published_config(image_size: int = PUBLISHED_SIZE) -> Sam3TrackerVideoConfig:
    """The published network, at an input size that is a multiple of its patches of 14 pixels."""
    config = Sam3TrackerVideoConfig()
    config.image_size = image_size
    return config


class Sam3Network(nn.Module):
    """SAM 3's tracker with the methods of `Sam2Network`; no method keeps state.

    Parameters
    ----------
    config : of transformers' network, see `published_config`
    """

    def __init__(self, config: Sam3TrackerVideoConfig) -> None:
        super().__init__()
        self.model = Sam3TrackerVideoModel(config)
        self.config = Sam3Config(
            config.image_size,
            self.model.prompt_encoder.mask_input_size[0],
            config.num_maskmem,
            config.max_object_pointers_in_encoder,
            (config.multimask_min_pt_num, config.multimask_max_pt_num),
        )

    @property
    def no_mem_embed(self) -> Tensor:
        """What is added to a slice without memories; on the network's device."""
        return self.model.no_memory_embedding

    def fill_constants(self) -> None:
        """Compute the constants that no checkpoint holds; needed after a build on the meta device."""
        for module in self.model.modules():
            if hasattr(module, "compute_axial_rope_parameters"):
                frequencies, _ = module.compute_axial_rope_parameters(module.config)
                module.inv_freq, module.original_inv_freq = frequencies, frequencies.clone()
            if hasattr(module, "precompute_positions"):
                windows = (module.window_size,) if hasattr(module, "window_size") else ()
                module.position_ids = module.precompute_positions(module.config, *windows)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode slices; see `Sam2Network.encode_image`.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised as the model card says
        """
        stride4, stride8, embedding, *_ = self.model.vision_encoder(pixels).fpn_hidden_states
        decoder = self.model.mask_decoder
        return ImageFeatures(decoder.conv_s0(stride4), decoder.conv_s1(stride8), embedding)

    def encode_prompts(self, points: Tensor, labels: Tensor, mask_logits: Tensor | None = None) -> PromptEmbedding:
        """Encode the prompts of B objects; see `Sam2Network.encode_prompts`."""
        with torch.autocast(points.device.type, enabled=False):  # bf16 would round coordinates by some pixels
            sparse, dense = self.model.prompt_encoder(points[:, None].float(), labels[:, None], None, mask_logits)
        return PromptEmbedding(sparse[:, 0], dense)

    def encode_no_clicks(self, batch: int, mask_logits: Tensor | None = None) -> PromptEmbedding:
        """Prompts of a slice without clicks: one padding point per object."""
        device = self.no_mem_embed.device
        points = torch.zeros(batch, 1, 2, device=device)
        return self.encode_prompts(points, torch.full((batch, 1), -1, device=device), mask_logits)

    def decode_masks(
        self, embedding: Tensor, high_resolution: tuple[Tensor, Tensor], prompts: PromptEmbedding, multimask: bool
    ) -> DecodedMasks:
        """Predict masks of B objects; see `Sam2Network.decode_masks`."""
        batch = max(len(embedding), len(prompts.sparse))
        with torch.autocast(embedding.device.type, enabled=False):
            position = self.model.get_image_wide_positional_embeddings()
        masks, iou, tokens, object_logits = self.model.mask_decoder(
            image_embeddings=embedding.expand(batch, -1, -1, -1),
            image_positional_embeddings=position.expand(batch, -1, -1, -1),
            sparse_prompt_embeddings=prompts.sparse[:, None].expand(batch, -1, -1, -1),
            dense_prompt_embeddings=prompts.dense,
            multimask_output=multimask,
            high_resolution_features=[part.expand(batch, -1, -1, -1) for part in high_resolution],
        )
        present = object_logits[:, 0] > 0
        pointers = self._mark_absent(self.model.object_pointer_proj(tokens[:, 0]), present)
        return DecodedMasks(masks[:, 0].float(), iou[:, 0].float(), object_logits[:, 0].float(), pointers)

    def use_mask_as_output(self, features: ImageFeatures, mask: Tensor) -> DecodedMasks:
        """Take a confirmed mask as the result of a slice; see `Sam2Network.use_mask_as_output`.

        Parameters
        ----------
        features : of the slice, not conditioned
        mask : (B, 1, S, S) bool, or 0 and 1
        """
        side = self.config.mask_size
        mask = mask.to(self.no_mem_embed.dtype)
        fine = (self._resized(mask, 4 * side) >= 0.5).to(mask.dtype)
        prompts = self.encode_no_clicks(len(mask), self.model.mask_downsample(fine))
        decoded = self.decode_masks(features.embedding, features.high_resolution, prompts, multimask=False)
        present = (mask > 0).flatten(1).any(dim=1, keepdim=True)
        return DecodedMasks(
            self._resized(fine * MASK_SCALE + MASK_BIAS, side),
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
        """Remember a slice and the mask found in it; see `Sam2Network.encode_memory`.

        Returns
        -------
        (B, memory_dim, S/14, S/14)
        """
        size = (self.config.image_size, self.config.image_size)
        logits = functional.interpolate(mask_logits.float(), size=size, mode="bilinear", align_corners=False)
        logits = self._resized(logits, 4 * self.config.mask_size)
        mask = (logits > 0).float() if from_prompt else logits.sigmoid()
        mask = (mask * MASK_SCALE + MASK_BIAS).to(embedding.dtype)
        memory, _ = self.model.memory_encoder(embedding.expand(len(mask), -1, -1, -1), mask)
        absent = (object_logits <= 0).to(memory.dtype)[:, :, None, None]
        memory = memory + absent * self.model.occlusion_spatial_embedding_parameter[:, :, None, None]
        return memory if dtype is None else memory.to(dtype)

    def condition(
        self,
        embedding: Tensor,
        memories: Sequence[tuple[Tensor, int]],
        pointers: Sequence[tuple[Tensor, float]],
        pointer_range: int | None = None,
    ) -> Tensor:
        """Let B objects in a slice look at their memories; see `Sam2Network.condition`."""
        if not memories:
            return embedding + self.no_mem_embed.view(1, -1, 1, 1)
        for _, slot in memories:
            if not 0 <= slot < self.config.memory_slots:
                raise ValueError(f"time slots must be 0 to {self.config.memory_slots - 1}, got {slot}.")
        tokens = [_in_sequence(memory).to(embedding.dtype) for memory, _ in memories]
        places = _in_sequence(self.model.memory_encoder.position_encoding(memories[0][0].shape, *_where(embedding)))
        times = self.model.memory_temporal_positional_encoding
        positions = [places + times[slot - 1] for _, slot in memories]
        if pointers:
            seen, when = self._pointer_tokens(pointers, pointer_range, tokens[0].shape[2])
            tokens.append(seen.to(embedding.dtype))
            positions.append(when.expand(-1, len(places[0]), -1))
        now = _in_sequence(embedding).expand(-1, tokens[0].shape[1], -1)
        conditioned = self.model.memory_attention(
            current_vision_features=now,
            current_vision_position_embeddings=_in_sequence(self._grid(embedding)),
            memory=torch.cat(tokens),
            memory_posision_embeddings=torch.cat(positions),
            num_object_pointer_tokens=len(tokens[-1]) if pointers else 0,
        )
        return conditioned[0].mT.unflatten(2, embedding.shape[2:])

    def _pointer_tokens(
        self, pointers: Sequence[tuple[Tensor, float]], pointer_range: int | None, channels: int
    ) -> tuple[Tensor, Tensor]:
        """Pointers cut to the memories' channels, (P * parts, B, channels), and the encodings of their distances."""
        stacked = torch.stack([pointer for pointer, _ in pointers])
        longest = max(1, self.config.max_pointers - 1 if pointer_range is None else pointer_range)
        times = torch.tensor([distance for _, distance in pointers], dtype=torch.float32, device=stacked.device)
        encoded = sine_encoding_1d(times / longest, stacked.shape[2])
        encoded = self.model.temporal_positional_encoding_projection_layer(encoded)
        parts = stacked.unflatten(2, (-1, channels)).transpose(1, 2).flatten(0, 1)
        return parts, encoded.repeat_interleave(stacked.shape[2] // channels, dim=0)[:, None]

    def _grid(self, embedding: Tensor) -> Tensor:
        return self.model.vision_encoder.neck.position_encoding(embedding[:1].shape, *_where(embedding))

    def _resized(self, maps: Tensor, side: int) -> Tensor:
        shrinks = side < maps.shape[-1]  # only then is there something to smooth
        resized = functional.interpolate(maps.float(), size=(side, side), mode="bilinear", antialias=shrinks)
        return resized.to(maps.dtype)

    def _mark_absent(self, pointers: Tensor, present: Tensor) -> Tensor:
        return torch.where(present[:, :, None], pointers, self.model.no_object_pointer.to(pointers.dtype))


def _in_sequence(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (H * W, B, C)."""
    return maps.flatten(2).permute(2, 0, 1)


def _where(maps: Tensor) -> tuple[torch.device, torch.dtype]:
    return maps.device, maps.dtype
