"""SAM of the package segment-anything and SAM-HQ of transformers, small, with random weights that mean something."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.benchmark.reference_sam2 import declare_torchvision_operators
from SegmentAnythingMedLib.models.networks.vit import VitConfig

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def reference_sam(config: VitConfig) -> nn.Module:
    """The package's Sam with an encoder of this shape."""
    declare_torchvision_operators()
    from segment_anything import modeling as reference

    grid, side, dim = config.grid, config.image_size, config.channels
    encoder = reference.ImageEncoderViT(
        img_size=side,
        patch_size=config.patch,
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        out_chans=dim,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=config.window,
        global_attn_indexes=config.global_blocks,
    )
    prompts = reference.PromptEncoder(
        embed_dim=dim, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    decoder = reference.MaskDecoder(
        transformer_dim=dim,
        transformer=reference.TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=8, mlp_dim=2048),
        iou_head_hidden_dim=dim,
    )
    return reference.Sam(encoder, prompts, decoder).eval()


def reference_hq(config: VitConfig) -> nn.Module:
    """transformers' SamHQModel with an encoder of this shape, and two differences from the published source mended.

    Release 5.23 upsamples the image embedding as it was before the two-way transformer, rows and columns exchanged; it
    is given what the transformer returns. Its layers' norms have an epsilon of 1e-6 by default, SAM's have 1e-5.
    """
    declare_torchvision_operators()
    from transformers.models.sam_hq import SamHQConfig, SamHQModel
    from transformers.models.sam_hq.configuration_sam_hq import (
        SamHQMaskDecoderConfig,
        SamHQPromptEncoderConfig,
        SamHQVisionConfig,
    )

    dim = config.channels
    vision = SamHQVisionConfig(
        hidden_size=config.dim,
        output_channels=dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        window_size=config.window,
        global_attn_indexes=list(config.global_blocks),
        num_pos_feats=dim // 2,
    )
    prompts = SamHQPromptEncoderConfig(hidden_size=dim, image_size=config.image_size)
    decoder = SamHQMaskDecoderConfig(hidden_size=dim, iou_head_hidden_dim=dim, vit_dim=config.dim, layer_norm_eps=1e-5)
    model = SamHQModel(SamHQConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder))
    returned: list[Tensor] = []
    model.mask_decoder.transformer.register_forward_hook(lambda module, given, found: returned.append(found[1]))
    model.mask_decoder.upscale_conv1.register_forward_pre_hook(
        lambda module, given: (returned.pop()[:, 0].mT.unflatten(2, given[0].shape[2:]),)
    )
    return model.eval()


@torch.no_grad()
def randomise(state: Mapping[str, Tensor], seed: int = 0) -> None:
    """Random weights: no parameter left at zero or one, logits well above 5. The gain is that of `oracle_sam2`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(state.items()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "positional_encoding_gaussian_matrix" in name:
            parameter.copy_(noise)
        elif name.endswith("weight") and parameter.ndim == 1:
            parameter.copy_(1 + 0.1 * noise)
        elif "rel_pos" in name or "pos_embed" in name:
            parameter.copy_(0.3 * noise)
        elif parameter.ndim >= 2 and name.endswith("weight"):
            parameter.copy_(0.6 * noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.05 * noise)
        if re.search(r"(hypernetworks_mlps\.\d|hf_mlp)\.layers\.2\.weight", name):
            parameter.mul_(80)


_HQ_RULES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix", ".shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.hf_token\.", ".hq_token."),
    (r"\.hf_mlp\.", ".hq_mask_mlp."),
    (r"\.compress_vit_feat\.0\.", ".compress_vit_conv1."),
    (r"\.compress_vit_feat\.1\.", ".compress_vit_norm."),
    (r"\.compress_vit_feat\.3\.", ".compress_vit_conv2."),
    (r"\.embedding_encoder\.0\.", ".encoder_conv1."),
    (r"\.embedding_encoder\.1\.", ".encoder_norm."),
    (r"\.embedding_encoder\.3\.", ".encoder_conv2."),
    (r"\.embedding_maskfeature\.0\.", ".mask_conv1."),
    (r"\.embedding_maskfeature\.1\.", ".mask_norm."),
    (r"\.embedding_maskfeature\.3\.", ".mask_conv2."),
    (r"(mlps\.\d|_mlp|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|_mlp|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(mlps\.\d|_mlp|_head)\.layers\.2\.", r"\1.proj_out."),
)


def to_transformers_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A SAM-HQ checkpoint of the original layout under transformers' names."""
    named = {}
    for key, tensor in state.items():
        for pattern, name in _HQ_RULES:
            key = re.sub(pattern, name, key)
        named[key] = tensor
    shared = named["prompt_encoder.shared_embedding.positional_embedding"]
    return named | {"shared_image_embedding.positional_embedding": shared}
