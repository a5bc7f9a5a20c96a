"""SAM 3's tensors under the names of the other layouts they come in: the inverse of `sam3_keys`, written for tests."""

from __future__ import annotations

import torch


def as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A tracker's tensors under the names in the published file."""
    places = "vision_encoder.backbone.embeddings.position_embeddings"
    named = {}
    for key, tensor in state.items():
        if ".attention.k_proj" in key or ".attention.v_proj" in key or key.startswith("shared_image_embedding"):
            continue
        if ".attention.q_proj" in key:
            tensor = torch.cat([state[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        if key == places:
            tensor = torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)
        if key == "prompt_encoder.point_embed.weight":
            parts = {f"tracker.sam_prompt_encoder.point_embeddings.{i}.weight": tensor[i : i + 1] for i in range(4)}
            named |= parts
            continue
        named[_published_name(key)] = tensor
    return named


def _published_name(key: str) -> str:
    trunk = key.startswith("vision_encoder.backbone")
    for ours, theirs in _NAMES[trunk]:
        key = key.replace(ours, theirs)
    head, _, tail = key.partition("mask_downsampler.layers.")
    if tail:
        index, part, *rest = tail.split(".")
        key = ".".join([f"{head}mask_downsampler.encoder.{3 * int(index) + (part != 'conv')}", *rest])
    return key if key.startswith("detector") else f"tracker.{key}"


_NAMES = {
    True: (
        ("vision_encoder.backbone.", "detector.backbone.vision_backbone.trunk."),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("trunk.layer_norm", "ln_pre_"),
        (".layers.", ".blocks."),
        ("layer_norm", "norm"),
        ("attention.q_proj", "attn.qkv"),
        ("attention.o_proj", "attn.proj"),
        ("ln_pre_", "trunk.ln_pre"),
    ),
    False: (
        ("fpn_layers.0.scale_layers.0", "fpn_layers.0.dconv_2x2_0"),
        ("fpn_layers.0.scale_layers.2", "fpn_layers.0.dconv_2x2_1"),
        ("fpn_layers.1.scale_layers.0", "fpn_layers.1.dconv_2x2"),
        ("vision_encoder.neck.fpn_layers.", "detector.backbone.vision_backbone.sam2_convs."),
        (".proj1.", ".conv_1x1."),
        (".proj2.", ".conv_3x3."),
        ("mask_decoder.transformer.layers.0.mlp.proj_in", "mask_decoder.transformer.layers.0.mlp.lin1"),
        ("mask_decoder.transformer.layers.0.mlp.proj_out", "mask_decoder.transformer.layers.0.mlp.lin2"),
        ("mask_decoder.transformer.layers.1.mlp.proj_in", "mask_decoder.transformer.layers.1.mlp.lin1"),
        ("mask_decoder.transformer.layers.1.mlp.proj_out", "mask_decoder.transformer.layers.1.mlp.lin2"),
        *((f"{head}.layers.0", f"{head}.layers.1") for head in ("iou_prediction_head", "pred_obj_score_head")),
        *((f"mlps.{i}.layers.0", f"mlps.{i}.layers.1") for i in range(4)),
        ("object_pointer_proj.layers.0", "object_pointer_proj.layers.1"),
        (".proj_in", ".layers.0"),
        (".proj_out", ".layers.2"),
        ("object_pointer_proj", "obj_ptr_proj"),
        ("upscale_conv1", "output_upscaling.0"),
        ("upscale_layer_norm", "output_upscaling.1"),
        ("upscale_conv2", "output_upscaling.3"),
        ("mask_embed.conv1", "mask_downscaling.0"),
        ("mask_embed.layer_norm1", "mask_downscaling.1"),
        ("mask_embed.conv2", "mask_downscaling.3"),
        ("mask_embed.layer_norm2", "mask_downscaling.4"),
        ("mask_embed.conv3", "mask_downscaling.6"),
        ("shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
        ("prompt_encoder", "sam_prompt_encoder"),
        ("mask_decoder", "sam_mask_decoder"),
        ("memory_attention.", "transformer.encoder."),
        ("memory_encoder.projection", "memory_encoder.out_proj"),
        ("memory_encoder.", "maskmem_backbone."),
        ("mask_downsampler.final_conv", "mask_downsampler.encoder.12"),
        ("feature_projection", "pix_feat_proj"),
        ("memory_fuser", "fuser"),
        ("depthwise_conv", "dwconv"),
        ("pointwise_conv", "pwconv"),
        (".scale", ".gamma"),
        ("o_proj", "out_proj"),
        (".layer_norm", ".norm"),
        ("temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
        ("no_object_pointer", "no_obj_ptr"),
        ("occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
        ("memory_temporal_positional_encoding", "maskmem_tpos_enc"),
        ("no_memory_embedding", "no_mem_embed"),
        ("no_memory_positional_encoding", "no_mem_pos_enc"),
    ),
}


def as_whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of transformers' whole SAM 3, with a tensor of the detector."""
    named = {"detector_model.detr_decoder.query_embed.weight": torch.zeros(2, 2)}
    for key, tensor in state.items():
        if key.startswith("vision_encoder.backbone."):
            named[f"detector_model.{key}"] = tensor
        elif key.startswith("vision_encoder.neck."):
            named[key.replace("vision_encoder.neck.", "tracker_neck.")] = tensor
        else:
            named[f"tracker_model.{key}"] = tensor
    return named
