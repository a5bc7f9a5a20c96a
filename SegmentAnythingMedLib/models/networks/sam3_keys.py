"""Names of SAM 3's tensors: from the layouts that its weights come in to that of transformers' tracker.

Three layouts are known: that of transformers' tracker itself; of transformers' whole SAM 3, of which the tracker and
its share of the encoder are taken; and the published one, whose names were read off the published source's modules.
No published file was at hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_WHOLE = (
    (r"^detector_model\.vision_encoder\.backbone\.", "vision_encoder.backbone."),
    (r"^tracker_neck\.", "vision_encoder.neck."),
    (r"^tracker_model\.", ""),
)
_TRUNK, _NECK = r"^detector\.backbone\.vision_backbone\.trunk\.", r"^detector\.backbone\.vision_backbone\.sam2_convs\."
_THREE_LAYERS = r"((?:iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|obj_ptr_proj)\.)layers\."
_PUBLISHED = (
    (r"^sam3_model\.", "detector."),
    (r"^sam2_predictor\.model\.", "tracker."),
    (_TRUNK, "vision_encoder.backbone."),
    (_NECK, "vision_encoder.neck.fpn_layers."),
    (r"^tracker\.", ""),
    (r"backbone\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"backbone\.patch_embed\.proj", "backbone.embeddings.patch_embeddings.projection"),
    (r"backbone\.ln_pre", "backbone.layer_norm"),
    (r"backbone\.blocks\.", "backbone.layers."),
    (r"(backbone\.layers\.\d+)\.attn\.proj", r"\1.attention.o_proj"),
    (r"(backbone\.layers\.\d+)\.attn\.", r"\1.attention."),
    (r"dconv_2x2_1", "scale_layers.2"),
    (r"dconv_2x2(_0)?", "scale_layers.0"),
    (r"(fpn_layers\.\d+)\.conv_1x1", r"\1.proj1"),
    (r"(fpn_layers\.\d+)\.conv_3x3", r"\1.proj2"),
    (r"^sam_(prompt_encoder|mask_decoder)", r"\1"),
    (r"^transformer\.encoder\.", "memory_attention."),
    (r"^maskmem_backbone\.", "memory_encoder."),
    (r"mlp\.lin1", "mlp.proj_in"),
    (r"mlp\.lin2", "mlp.proj_out"),
    (_THREE_LAYERS + "0", r"\1proj_in"),
    (_THREE_LAYERS + "1", r"\1layers.0"),
    (_THREE_LAYERS + "2", r"\1proj_out"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"out_proj", "o_proj"),
    (r"\.norm", ".layer_norm"),
    (r"pix_feat_proj", "feature_projection"),
    (r"\.fuser\.", ".memory_fuser."),
    (r"mask_downsampler\.encoder\.12", "mask_downsampler.final_conv"),
    (
        r"mask_downsampler\.encoder\.(\d+)",
        lambda found: (
            f"mask_downsampler.layers.{int(found[1]) // 3}." + ("layer_norm" if int(found[1]) % 3 else "conv")
        ),
    ),
    (r"dwconv", "depthwise_conv"),
    (r"pwconv", "pointwise_conv"),
    (r"gamma$", "scale"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
)
_POINTS = "prompt_encoder.point_embeddings.{}.weight"
_PLACES = "prompt_encoder.shared_embedding.positional_embedding"
_NOT_THE_TRACKERS = ("detector_model.", "detector.", "sam3_model.")


def tracker_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of transformers' SAM 3 tracker out of a checkpoint of any layout; unknown names are kept as they are.

    Tensors may be on the meta device.
    """
    if any(key.startswith(("tracker.", "sam2_predictor.model.")) for key in state):
        return _from_published(state)
    return _renamed(state, _WHOLE)


def _renamed(state: Mapping[str, Tensor], rules: tuple) -> dict[str, Tensor]:
    """Without what only the detector has."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        if not key.startswith(_NOT_THE_TRACKERS):
            renamed[key] = tensor
    return renamed


def _from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Points are one table, queries, keys and values apart, and no position is kept for the class token."""
    named = _renamed({key: tensor for key, tensor in state.items() if not key.endswith(".freqs_cis")}, _PUBLISHED)
    points = [named.pop(_POINTS.format(index)) for index in range(4) if _POINTS.format(index) in named]
    if points:
        named["prompt_encoder.point_embed.weight"] = torch.cat(points)
    if _PLACES in named:
        named["shared_image_embedding.positional_embedding"] = named[_PLACES]
    places = "vision_encoder.backbone.embeddings.position_embeddings"
    if places in named:
        named[places] = named[places][:, 1:]
    for key in [key for key in named if ".attention.qkv." in key]:
        parts = zip(("q_proj", "k_proj", "v_proj"), named.pop(key).chunk(3), strict=True)
        named |= {key.replace("qkv", name): part for name, part in parts}
    return named
