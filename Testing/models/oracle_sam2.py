"""SAM 2's memory rule over our network; the reference packages are in `benchmark.reference_sam2`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from SegmentAnythingMedLib.benchmark.reference_sam2 import CONFIGS as CONFIGS
from SegmentAnythingMedLib.benchmark.reference_sam2 import Prompt as Prompt
from SegmentAnythingMedLib.benchmark.reference_sam2 import (
    declare_torchvision_operators as declare_torchvision_operators,
)
from SegmentAnythingMedLib.benchmark.reference_sam2 import randomise as randomise
from SegmentAnythingMedLib.benchmark.reference_sam2 import reference_track as reference_track
from SegmentAnythingMedLib.benchmark.reference_sam2 import sam2_predictor as sam2_predictor
from SegmentAnythingMedLib.benchmark.reference_sam2 import to_transformers_keys as to_transformers_keys
from SegmentAnythingMedLib.benchmark.reference_sam2 import transformers_model as transformers_model
from SegmentAnythingMedLib.benchmark.reference_sam2 import transformers_track as transformers_track
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks, ImageFeatures, Sam2Network


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """Largest absolute difference, as a part of the largest absolute reference value."""
    return float((ours.float() - reference.float()).abs().max() / reference.float().abs().max())


@dataclass
class Track:
    """What one object left behind in each slice: prompted and tracked outputs (mask, memory, pointer)."""

    prompted: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    tracked: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


def segment_slice(network: Sam2Network, features: ImageFeatures, prompt: Prompt) -> DecodedMasks:
    """One prompted slice without memories, as SAM 2's video model treats it."""
    if prompt.mask is not None:
        return network.use_mask_as_output(features, prompt.mask[None, None])
    points = torch.tensor(prompt.points, dtype=torch.float32)[None]
    labels = torch.tensor(prompt.labels)[None]
    prompts = network.encode_prompts(points, labels)
    embedding = network.condition(features.embedding, (), ())
    multimask = network.config.wants_multimask(len(prompt.labels))
    return network.decode_masks(embedding, features.high_resolution, prompts, multimask).suppress_absent().best()


def track(
    network: Sam2Network, slices: Sequence[ImageFeatures], prompts: Iterable[Prompt], order: Sequence[int]
) -> dict[int, Tensor]:
    """Mask logits (1, 1, S/4, S/4) by slice, under SAM 2's memory rule: every prompted slice, the last six tracked."""
    config, step = network.config, order[1] - order[0]
    pointer_range = min(len(slices), config.max_pointers) - 1
    seen = Track()

    def remember(index: int, decoded: DecodedMasks, from_prompt: bool) -> tuple[Tensor, Tensor, Tensor]:
        memory = network.encode_memory(slices[index].embedding, decoded.mask_logits, decoded.object_logits, from_prompt)
        return decoded.mask_logits, memory, decoded.pointers[:, 0]

    for prompt in prompts:
        decoded = segment_slice(network, slices[prompt.slice_index], prompt)
        seen.prompted[prompt.slice_index] = remember(prompt.slice_index, decoded, from_prompt=True)
    for index in order:
        if index in seen.prompted:
            continue
        past = {distance: index - step * distance for distance in range(config.max_pointers - 1, 0, -1)}
        memories = [(memory, 0) for _, memory, _ in seen.prompted.values()]
        memories += [
            (seen.tracked[at][1], distance)
            for distance, at in past.items()
            if distance < config.memory_slots and at in seen.tracked
        ]
        pointers = [
            (pointer, (index - at) * step) for at, (_, _, pointer) in seen.prompted.items() if (index - at) * step >= 0
        ]
        pointers += [
            (seen.tracked[at][2], distance)
            for distance, at in reversed(past.items())
            if distance <= pointer_range and at in seen.tracked
        ]
        conditioned = network.condition(slices[index].embedding, memories, pointers, pointer_range)
        decoded = network.decode_masks(
            conditioned, slices[index].high_resolution, network.encode_no_clicks(1), config.wants_multimask(0)
        )
        seen.tracked[index] = remember(index, decoded.suppress_absent().best(), from_prompt=False)
    return {index: masks for index, (masks, _, _) in sorted((seen.prompted | seen.tracked).items())}
