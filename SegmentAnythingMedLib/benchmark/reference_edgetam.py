"""transformers' EdgeTAM, and our network with random weights that mean something: the reference of EdgeTAM.

It comes with the extra ``oracle`` and is used in tests and benchmarks only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from SegmentAnythingMedLib.benchmark import reference_sam2
from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork

if TYPE_CHECKING:
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession


@torch.no_grad()
def random_network(side: int, seed: int = 0) -> EdgeTamNetwork:
    """Our network with weights as `reference_sam2.randomise` makes them, running statistics and latents included."""
    network = EdgeTamNetwork(EdgeTamConfig(image_size=side))
    reference_sam2.randomise(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, tensor in sorted(network.state_dict().items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
        elif name.endswith("running_mean"):
            tensor.copy_(0.1 * noise)
        elif "latents" in name.rpartition(".")[2]:
            tensor.copy_(noise)
    return network.eval()


def transformers_model(side: int) -> nn.Module:
    """transformers' EdgeTAM video model, configured as the published checkpoint is."""
    reference_sam2.declare_torchvision_operators()
    from transformers import (
        EdgeTamVideoConfig,
        EdgeTamVideoModel,
        EdgeTamVideoPromptEncoderConfig,
        EdgeTamVisionConfig,
        TimmWrapperConfig,
    )

    trunk = TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": (0, 1, 2, 3)},
        num_classes=1000,
    )
    sides = [[side // stride] * 2 for stride in (4, 8, 16)]
    config = EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(backbone_config=trunk, backbone_feature_sizes=sides),
        prompt_encoder_config=EdgeTamVideoPromptEncoderConfig(image_size=side),
        image_size=side,
        memory_attention_rope_feat_sizes=sides[-1],
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
    )
    return EdgeTamVideoModel(config).eval()


@contextmanager
def as_published(model: nn.Module) -> Iterator[None]:
    """Two things that transformers does otherwise than the published predictor, done as published.

    Memories are rounded to bfloat16 (transformers: float32), and a mask prompt is remembered from its logits at a
    quarter of the resolution (transformers: from the mask itself).
    """
    encode, take_mask = model._encode_new_memory, model._use_mask_as_output

    def rounding(*arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        memory, position = encode(*arguments, **options)
        return memory.to(torch.bfloat16).float(), position

    def resampling(features: Tensor, high_resolution: list[Tensor], mask: Tensor) -> object:
        output = take_mask(features, high_resolution, mask)
        output.high_res_masks = functional.interpolate(output.pred_masks, mask.shape[2:], mode="bilinear")
        return output

    model._encode_new_memory, model._use_mask_as_output = rounding, resampling
    try:
        yield
    finally:
        del model._encode_new_memory, model._use_mask_as_output


def transformers_track(
    model: nn.Module, frames: Tensor, objects: Mapping[int, Sequence[reference_sam2.Prompt]], order: Sequence[int]
) -> dict[int, Tensor]:
    """Logits (objects, 1, S/4, S/4) by slice. transformers cannot stack an object of clicks with one of a mask."""
    with as_published(model):
        return dict(transformers_slices(model, frames, objects, order, len(frames)))


def transformers_slices(
    model: nn.Module,
    frames: Tensor,
    objects: Mapping[int, Sequence[reference_sam2.Prompt]],
    order: Sequence[int],
    kept: int = 1,
) -> Iterator[tuple[int, Tensor]]:
    """Slice by slice; ``kept`` slices' features are kept, as in transformers' default one. See `reference_slices`."""
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

    size = frames.shape[-1]
    session = EdgeTamVideoInferenceSession(frames, size, size, dtype=torch.float32, max_vision_features_cache_size=kept)
    with torch.inference_mode():
        for object_id, prompts in objects.items():
            row = session.obj_id_to_idx(object_id)
            for prompt in prompts:
                _add(session, row, prompt)
                session.obj_with_new_inputs = [object_id]
                model(session, frame_idx=prompt.slice_index)
    for output in model.propagate_in_video_iterator(session, start_frame_idx=order[0], reverse=order[1] < order[0]):
        yield output.frame_idx, output.pred_masks


def _add(session: EdgeTamVideoInferenceSession, row: int, prompt: reference_sam2.Prompt) -> None:
    if prompt.mask is not None:
        session.add_mask_inputs(row, prompt.slice_index, prompt.mask[None, None])
        return
    points = torch.tensor(prompt.points, dtype=torch.float32)[None, None]
    labels = torch.tensor(prompt.labels, dtype=torch.int32)[None, None]
    session.add_point_inputs(row, prompt.slice_index, {"point_coords": points, "point_labels": labels})


_PERCEIVER = (
    (r"^image_encoder\.trunk\.body", "image_encoder.trunk.timm_model"),
    (r"^(memory_attention\..*)linear1", r"\1mlp.up_proj"),
    (r"^(memory_attention\..*)linear2", r"\1mlp.down_proj"),
    (r"spatial_perceiver\.latents$", "spatial_perceiver.latents_1d"),
    (r"\.attn\.norm_x", ".norm_input"),
    (r"\.attn\.norm_latents", ".norm_latents"),
    (r"\.self_attn\.norm\.", ".norm_self."),
    (r"^(spatial_perceiver\..*)\.attn\.", r"\1.cross_attention."),
    (r"^(spatial_perceiver\..*)\.self_attn\.", r"\1.self_attention."),
    (r"to_q", "q_proj"),
    (r"to_out", "o_proj"),
    (r"ff\.0\.", "mlp.norm."),
    (r"ff\.1\.", "mlp.up_proj."),
    (r"ff\.3\.", "mlp.down_proj."),
)


def to_transformers_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Original keys renamed to those of transformers' EdgeTamVideoModel."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in _PERCEIVER:
            key = re.sub(pattern, replacement, key)
        parts = dict(zip(("k_proj", "v_proj"), tensor.chunk(2), strict=True)) if ".to_kv." in key else {"": tensor}
        renamed |= {key.replace("to_kv", name) if name else key: part for name, part in parts.items()}
    trunk = {key for key in renamed if ".timm_model." in key}
    return reference_sam2.to_transformers_keys({key: renamed[key] for key in renamed if key not in trunk}) | {
        key.replace("image_encoder.trunk", "vision_encoder.backbone"): renamed[key] for key in trunk
    }
