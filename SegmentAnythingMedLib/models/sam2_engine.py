"""SAM 2's networks computed by OpenVINO on a CPU; what it does not compute faster stays with torch.

Compiled are, for one object at a time, the image encoder, memory attention, the mask decoder of a tracked slice, and
in bf16 the memory encoder (in fp32 torch is as fast). Figures are in docs/benchmarks/speed.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.accelerate import PRECISIONS, Accelerator, Compiled, Part, is_installed
from SegmentAnythingMedLib.models.networks.memory_attention import Rotation
from SegmentAnythingMedLib.models.networks.on_gpu import keep_weights_in
from SegmentAnythingMedLib.models.networks.prompt_encoder import PromptEmbedding
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks, ImageFeatures, Sam2Network
from SegmentAnythingMedLib.models.networks.sam2_parts import (
    DecoderPart,
    ImageEncoderPart,
    MemoryAttentionPart,
    MemoryEncoderPart,
)

log = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "openvino")
ENGINE_VARIABLE = "SEGMENT_ANYTHING_MED_ENGINE"
"""Environment variable that says what computes models whose card does not say it."""


def make_ready(network: Sam2Network, precision: torch.dtype, engine: str = "auto", cache: Path | None = None) -> str:
    """Make a network fast on a CPU; the answer is what computes it, ``torch`` or ``openvino``.

    Parameters
    ----------
    network
        On the CPU, in evaluation; it is not trained any more.
    precision
        Of products. OpenVINO knows float32 and bfloat16.
    engine
        ``torch``; ``openvino``; ``auto`` takes OpenVINO where it is installed. What OpenVINO cannot do torch does, and
        the log says so.
    cache
        Folder for what OpenVINO converted, or None.

    Raises
    ------
    ModelUnavailableError
        If the engine is not known.
    """
    if engine not in ENGINES:
        raise ModelUnavailableError(f"Engine {engine!r} is not known: use {', '.join(ENGINES)}.")
    if engine == "openvino" or (engine == "auto" and is_installed() and precision in PRECISIONS):
        try:
            run_in_openvino(network, Accelerator(cache), precision)
        except ModelUnavailableError as error:
            log.warning("%s Until then torch computes the model, slower and with the same results.", error)
        else:
            return "openvino"
    if precision is torch.bfloat16:
        keep_weights_in(network, precision)
        network.image_encoder.to(memory_format=torch.channels_last)  # EdgeTAM's convolutions take 67 ms, not 164
    return "torch"


def run_in_openvino(network: Sam2Network, accelerator: Accelerator, precision: torch.dtype) -> None:
    """Replace calls of a network; weights and keys stay. With gradients, or other shapes, torch goes on computing.

    Parameters
    ----------
    network
        On the CPU, in evaluation; not changed if this fails.
    accelerator
        Compiles the parts.
    precision
        float32 or bfloat16.

    Raises
    ------
    ModelUnavailableError
        If OpenVINO cannot compute a part.
    """
    with torch.inference_mode(False), torch.no_grad():
        compiled = {part.name.partition("-")[0]: accelerator.compile(part) for part in _parts(network, precision)}
    config, side = network.config, network.config.image_size
    network.encode_image = _EncodeImage(network.encode_image, compiled["image_encoder"], side)
    network.decode_masks = _DecodeMasks(network.decode_masks, compiled["mask_decoder"], network.decoded)
    if "memory_attention" in compiled:
        attention = network.memory_attention
        loose = config.max_pointers * (config.dim // config.memory_dim)
        attention.forward = _Attend(attention.forward, compiled["memory_attention"], loose)
    if "memory_encoder" in compiled:
        network.encode_memory = _EncodeMemory(network.encode_memory, compiled["memory_encoder"], side)


def _parts(network: Sam2Network, precision: torch.dtype) -> list[Part]:
    """What is compiled; names hold the input size, so that sizes do not displace each other in the cache."""
    config, side = network.config, network.config.image_size
    noise = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=noise)

    pixels = random(1, 3, side, side)
    image = ImageEncoderPart(network).eval()
    *fine, embedding = image(pixels)
    prompts = network.encode_no_clicks(1)
    # The decoder stays in fp32: 7 of 350 ms, and its errors would be the mask's.
    decoded = (embedding, prompts.sparse, prompts.dense, *fine)
    found = [
        Part("image_encoder", image, (pixels,), None, precision),
        Part("mask_decoder", DecoderPart(network).eval(), decoded),
    ]
    if MemoryAttentionPart.fits(network.memory_attention):
        rotation = network.memory_rotation(*embedding.shape[2:])
        memory, position = (random(1, len(rotation[0]) + 4, config.memory_dim) for _ in range(2))
        example = MemoryAttentionPart.arguments(embedding, memory, position, 1, rotation)
        attention = MemoryAttentionPart(network.memory_attention).eval()
        found.append(Part("memory_attention", attention, example, {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}, precision))
    if precision is torch.bfloat16:
        remembered = embedding, random(1, 1, side // 4, side // 4), torch.ones(1, 1)
        found.append(Part("memory_encoder", MemoryEncoderPart(network).eval(), remembered, None, precision))
    return [Part(f"{one.name}-{side}", one.module, one.example, one.growing, one.precision) for one in found]


class _Replaced:
    """A call that OpenVINO computes, and torch where it cannot."""

    def __init__(self, plain: Callable[..., Any], compiled: Compiled, extra: Any = None) -> None:
        self._plain, self._compiled, self._extra = plain, compiled, extra


class _EncodeImage(_Replaced):
    """`Sam2Network.encode_image`, slice by slice: batches gain nothing on a CPU."""

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        if torch.is_grad_enabled() or tuple(pixels.shape[1:]) != (3, self._extra, self._extra):
            return self._plain(pixels)
        rows = [self._compiled(row[None]) for row in pixels]
        *fine, embedding = (torch.cat(maps) for maps in zip(*rows, strict=True))
        return ImageFeatures(*(fine or (None, None)), embedding)


class _DecodeMasks(_Replaced):
    """`Sam2Network.decode_masks` of one object without a prompt, or with one click."""

    def __call__(
        self,
        embedding: Tensor,
        high_resolution: tuple[Tensor, Tensor] | None,
        prompts: PromptEmbedding,
        multimask: bool,
    ) -> DecodedMasks:
        shapes = len(embedding), tuple(prompts.sparse.shape[:2]), prompts.dense.shape[2:].numel()
        if torch.is_grad_enabled() or not multimask or shapes != (1, (1, 2), 1):
            return self._plain(embedding, high_resolution, prompts, multimask)
        return self._extra(*self._compiled(embedding, prompts.sparse, prompts.dense, *(high_resolution or ())))


class _Attend(_Replaced):
    """`MemoryAttention.forward` of one object."""

    def __call__(self, embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: Rotation) -> Tensor:
        if torch.is_grad_enabled() or len(memory) != 1:
            return self._plain(embedding, memory, position, maps, rotation)
        loose = self._extra  # as many as all pointers have
        return self._compiled(*MemoryAttentionPart.arguments(embedding, memory, position, maps, rotation, loose))[0]


class _EncodeMemory(_Replaced):
    """`Sam2Network.encode_memory` of one object on a tracked slice."""

    def __call__(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        from_prompt: bool,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> Tensor:
        shape = 1, 1, self._extra // 4, self._extra // 4
        if torch.is_grad_enabled() or from_prompt or tuple(mask_logits.shape) != shape:
            return self._plain(embedding, mask_logits, object_logits, from_prompt, dtype)
        memory = self._compiled(embedding, mask_logits, object_logits)[0]
        return memory if dtype is None else memory.to(dtype)
