"""transformers' SAM 3 tracker in a small random configuration of 56 pixels."""

from __future__ import annotations

import torch
from torch import nn

from SegmentAnythingMedLib.benchmark.reference_sam2 import declare_torchvision_operators

declare_torchvision_operators()

from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig, Sam3ViTConfig  # noqa: E402
from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import (  # noqa: E402
    Sam3TrackerVideoConfig,
    Sam3TrackerVideoMaskDecoderConfig,
    Sam3TrackerVideoPromptEncoderConfig,
)

from SegmentAnythingMedLib.models.networks.sam3_network import Sam3Network  # noqa: E402

SIDE, DIM = 56, 128


def small_config(**changes: object) -> Sam3TrackerVideoConfig:
    """A trunk of two blocks, one of them with windows, and two channels of memory in a pointer's place."""
    trunk = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    )
    config = Sam3TrackerVideoConfig(
        vision_config=Sam3VisionConfig(backbone_config=trunk, fpn_hidden_size=DIM),
        prompt_encoder_config=Sam3TrackerVideoPromptEncoderConfig(hidden_size=DIM),
        mask_decoder_config=Sam3TrackerVideoMaskDecoderConfig(
            hidden_size=DIM, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=32
        ),
        memory_attention_hidden_size=DIM,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=64,
        memory_encoder_hidden_size=DIM,
        mask_downsampler_embed_dim=DIM,
        memory_fuser_embed_dim=DIM,
        memory_fuser_intermediate_dim=64,
        **changes,
    )
    config.image_size = SIDE
    return config


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random weights as those of SAM 2's oracle: none left at zero or one, logits above 5, objects present."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for name, tensor in sorted(state.items()):
        noise = torch.randn(tensor.shape, generator=generator)
        if "positional_embedding" in name:
            tensor.copy_(noise)
        elif name.endswith("weight") and tensor.ndim == 1:
            tensor.copy_(1 + 0.1 * noise)
        elif name.endswith("scale"):
            tensor.copy_(0.1 * noise)
        elif tensor.ndim >= 2 and name.endswith("weight"):
            tensor.copy_(0.6 * noise * tensor[0].numel() ** -0.5)
        else:
            tensor.copy_(0.05 * noise)
    state["memory_temporal_positional_encoding"].mul_(6)
    state["shared_image_embedding.positional_embedding"].copy_(
        state["prompt_encoder.shared_embedding.positional_embedding"]
    )
    state["mask_decoder.pred_obj_score_head.proj_out.bias"].fill_(10.0)
    for index in range(4):
        state[f"mask_decoder.output_hypernetworks_mlps.{index}.proj_out.weight"].mul_(40)


def small_network() -> Sam3Network:
    """With random weights, in evaluation."""
    network = Sam3Network(small_config())
    randomise(network.model)
    return network.eval()
