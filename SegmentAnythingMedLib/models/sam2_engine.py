"""SAM 2's networks computed by OpenVINO on a CPU; what it does not compute faster stays with torch.

Compiled are, for one object at a time, the image encoder, memory attention, the mask decoder of a tracked slice, and
the memory encoder. Figures are in docs/benchmarks/speed.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.free_memory import give_back_memory
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
_TIDIED = 16  # slices: what they leave free in glibc's heap, up to 200 MiB, goes back to the system


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
    side = network.config.image_size
    network.encode_image = _EncodeImage(network.encode_image, compiled["image_encoder"], side)
    network.decode_masks = _DecodeMasks(network.decode_masks, compiled["mask_decoder"], network.decoded)
    attention = network.memory_attention
    part = MemoryAttentionPart.of(attention, _loose(network))
    attention.forward = _Attend(attention.forward, compiled["memory_attention"], part)
    extra = side, network.enlarged
    network.encode_memory = _EncodeMemory(network.encode_memory, compiled["memory_encoder"], extra)
    for one in compiled.values():
        one.unload()
    give_back_memory()


def _parts(network: Sam2Network, precision: torch.dtype) -> list[Part]:
    """What is compiled; names hold the input size, so that sizes do not displace each other in the cache.

    Torch goes on decoding boxes and refined masks and remembering prompted slices; the other two are spare.
    """
    config, side = network.config, network.config.image_size
    noise = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=noise)

    pixels = random(1, 3, side, side)
    image = ImageEncoderPart(network).eval()
    embedding = random(1, config.dim, side // 16, side // 16)
    strides = (4, 8) if config.high_resolution else ()
    fine = [random(1, config.dim * stride // 32, side // stride, side // stride) for stride in strides]
    prompts = network.encode_no_clicks(1)
    # The decoder stays in fp32, 8 of 290 ms: in bf16 its presence logit was off by 0.2 (torch's by 0.04), in small
    # networks it was NaN.
    decoded = (embedding, prompts.sparse, prompts.dense, *fine)
    found = [
        Part("image_encoder", image, (pixels,), None, precision, spare=True),
        Part("mask_decoder", DecoderPart(network).eval(), decoded),
    ]
    rotation = network.memory_rotation(*embedding.shape[2:])
    attention = MemoryAttentionPart.of(network.memory_attention, _loose(network)).eval()
    maps = max(config.memory_slots, attention.fewest_maps)  # as many as it looks back on once its memory is full
    memory, position = (random(1, maps * len(rotation[0]), config.memory_dim) for _ in range(2))
    example = attention.arguments(embedding, memory, position, maps, rotation)
    found.append(Part("memory_attention", attention, example, attention.growing, precision, False, spare=True))
    remembered = embedding, random(1, 1, side, side), torch.ones(1, 1)
    found.append(Part("memory_encoder", MemoryEncoderPart(network).eval(), remembered, None, precision))
    return [replace(one, name=f"{one.name}-{side}") for one in found]


def _loose(network: Sam2Network) -> int:
    """Tokens of as many pointers as a slice may look at."""
    return network.config.max_pointers * (network.config.dim // network.config.memory_dim)


class _Replaced:
    """A call that OpenVINO computes, and torch where it cannot or gives what is no number."""

    def __init__(self, plain: Callable[..., Any], compiled: Compiled, extra: Any = None) -> None:
        self._plain, self._compiled, self._extra, self._given_up = plain, compiled, extra, False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if torch.is_grad_enabled() or self._given_up or not self._fits(*arguments, **options):
            return self._plain(*arguments, **options)
        try:
            return self._compute(*arguments, **options)
        except FloatingPointError:
            self._given_up = True
            log.warning("OpenVINO computed what is no number: torch goes on, slower.")
            return self._plain(*arguments, **options)

    def _fits(self, *arguments: Any, **options: Any) -> bool:
        """Whether this is what was compiled."""
        raise NotImplementedError

    def _compute(self, *arguments: Any, **options: Any) -> Any:
        """The same as the plain call."""
        raise NotImplementedError


class _EncodeImage(_Replaced):
    """`Sam2Network.encode_image`, slice by slice: batches gain nothing on a CPU."""

    _slices = 0

    def _fits(self, pixels: Tensor) -> bool:
        return tuple(pixels.shape[1:]) == (3, self._extra, self._extra)

    def _compute(self, pixels: Tensor) -> ImageFeatures:
        rows = [self._compiled(row[None]) for row in pixels]
        self._slices += 1
        if self._slices % _TIDIED == 0:
            give_back_memory()
        *fine, embedding = (torch.cat(maps) if len(maps) > 1 else maps[0] for maps in zip(*rows, strict=True))
        return ImageFeatures(*(fine or (None, None)), embedding)


class _DecodeMasks(_Replaced):
    """`Sam2Network.decode_masks` of one object without a prompt, or with one click."""

    def _fits(
        self,
        embedding: Tensor,
        high_resolution: tuple[Tensor, Tensor] | None,
        prompts: PromptEmbedding,
        multimask: bool,
    ) -> bool:
        shapes = len(embedding), tuple(prompts.sparse.shape[:2]), prompts.dense.shape[2:].numel()
        return multimask and shapes == (1, (1, 2), 1)

    def _compute(
        self,
        embedding: Tensor,
        high_resolution: tuple[Tensor, Tensor] | None,
        prompts: PromptEmbedding,
        multimask: bool,
    ) -> DecodedMasks:
        return self._extra(*self._compiled(embedding, prompts.sparse, prompts.dense, *(high_resolution or ())))


class _Attend(_Replaced):
    """`MemoryAttention.forward` of one object."""

    def _fits(self, embedding: Tensor, memory: Tensor, position: Tensor, maps: int, rotation: Rotation) -> bool:
        return len(memory) == 1 and maps >= self._extra.fewest_maps

    def _compute(self, *arguments: Any) -> Tensor:
        return self._compiled(*self._extra.arguments(*arguments))[0]


class _EncodeMemory(_Replaced):
    """`Sam2Network.encode_memory` of one object on a tracked slice."""

    def _fits(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        from_prompt: bool,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> bool:
        quarter = self._extra[0] // 4
        return not from_prompt and tuple(mask_logits.shape) == (1, 1, quarter, quarter)

    def _compute(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        from_prompt: bool,
        dtype: torch.dtype | None = torch.bfloat16,
    ) -> Tensor:
        enlarged = self._extra[1](mask_logits)
        memory = self._compiled(embedding, enlarged, object_logits)[0]
        return memory if dtype is None else memory.to(dtype)
